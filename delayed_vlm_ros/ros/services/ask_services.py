"""How the node is asked: the service ``ask_scene`` and the action ``ask_scene_stream``. Both take the same way."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.msg import SceneAnswer
from delayed_vlm_ros.ros.output.messages import error_text, feedback, fill_answer, fill_error, scene_answer
from delayed_vlm_ros.ros.services.ask_handler import Answer
from delayed_vlm_ros.srv import AskScene

_RESULT_TIMEOUT_SEC = 10  # how long a goal's result can be fetched; as in nav2
_CANCELLING_TIMEOUT_SEC = 1.0
_LOG_EVERY_SEC = 5.0
# Requests that may lie here unread: of a burst beyond them, the middleware would drop some without a word.
_BURST = QoSProfile(depth=500)


class Ask(Protocol):
    """Answers a request or a goal, in the caller's thread."""

    def __call__(self, message: Any, control: AskControl, on_progress: Callable[[Progress], None] | None) -> Answer:
        """Give the answer, or raise why there is none."""


class _GoalControl(AskControl):
    """A goal's control.

    Attributes:
        cancel_requested: Whether somebody has asked for its cancellation; the end of the worker cancels, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cancel_requested = False


class AskServices:
    """Offers service and action, in every state of the node, and publishes each answer on ``~/answers``.

    Each ask holds a thread of the executor until it is answered, in a callback group that lets them. A goal is always
    accepted: one that is refused ends at once, with the reason in its result.

    Args:
        node: The node to offer them from.
        ask: What answers.
    """

    def __init__(self, node: Node, ask: Ask) -> None:
        self._node = node
        self._ask = ask
        self._ended = False
        self._cancelling = threading.Lock()
        self._answers = node.create_publisher(SceneAnswer, "~/answers", 10)
        group = ReentrantCallbackGroup()
        self._service = node.create_service(
            AskScene, "ask_scene", self._on_request, qos_profile=_BURST, callback_group=group
        )
        self._action = ActionServer(
            node,
            AskSceneAction,
            "ask_scene_stream",
            self._on_goal,
            callback_group=group,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=_BURST,
            result_service_qos_profile=_BURST,
            cancel_service_qos_profile=_BURST,
            result_timeout=_RESULT_TIMEOUT_SEC,
        )

    def end(self) -> None:
        """Publish nothing any more; the node is about to be destroyed."""
        self._ended = True

    def destroy(self) -> None:
        """Take the action down, which the node does not do by itself."""
        self._action.destroy()

    def _on_request(self, request: AskScene.Request, response: AskScene.Response) -> AskScene.Response:
        return self._respond(request, response, AskControl(), None)

    def _on_goal(self, goal: Any) -> AskSceneAction.Result:
        def on_progress(progress: Progress) -> None:
            self._report(lambda: goal.publish_feedback(feedback(progress)))

        control = self._control_of(goal)
        on_progress(Progress(Stage.QUEUED))
        result = self._respond(goal.request, AskSceneAction.Result(), control, on_progress)
        if self._ended:
            return result
        if result.success:
            goal.succeed()
        elif control.cancel_requested and result.error_code == AskSceneAction.Result.CANCELLED and _is_cancelling(goal):
            goal.canceled()
        else:
            goal.abort()
        return result

    def _on_cancel(self, goal: Any) -> CancelResponse:
        control = self._control_of(goal)
        control.cancel_requested = True
        control.cancel()
        return CancelResponse.ACCEPT

    def _control_of(self, goal: Any) -> _GoalControl:
        """A goal's control, which lives as long as its handle: a goal may be cancelled before it is taken up."""
        with self._cancelling:
            if not hasattr(goal, "ask_control"):
                goal.ask_control = _GoalControl()
            control: _GoalControl = goal.ask_control
            return control

    def _respond(
        self, message: Any, response: Any, control: AskControl, on_progress: Callable[[Progress], None] | None
    ) -> Any:
        """Fill the response; never raises."""
        try:
            fill_answer(response, self._ask(message, control, on_progress))
        except DelayedVlmError as error:
            fill_error(response, error)
            self._node.get_logger().info(f"ask failed: {error_text(error)}")
        except Exception as error:  # noqa: BLE001  a defect must not take the node down; the client_id hears of it
            response = type(response)()
            fill_error(response, error)
            self._node.get_logger().error(f"ask failed: {traceback.format_exc()}")
        self._report(lambda: self._answers.publish(scene_answer(message, response)))
        return response

    def _report(self, publish: Callable[[], None]) -> None:
        """Publish something that decides no ask's outcome; never raises."""
        if self._ended:
            return
        try:
            publish()
        except Exception as error:  # noqa: BLE001  such as that of a middleware that has no room
            self._node.get_logger().warning(
                f"feedback or answer is not published: {type(error).__name__}: {error}",
                throttle_duration_sec=_LOG_EVERY_SEC,
            )


def _is_cancelling(goal: Any) -> bool:
    """Whether a goal that was cancelled may end so: rclpy says it is being cancelled after it has told us."""
    deadline = time.monotonic() + _CANCELLING_TIMEOUT_SEC
    while not goal.is_cancel_requested and time.monotonic() < deadline:
        time.sleep(0.001)
    return bool(goal.is_cancel_requested)
