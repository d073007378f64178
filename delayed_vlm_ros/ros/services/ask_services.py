"""The service ``ask_scene`` and the action ``ask_scene_stream``.

Their handlers are coroutines: a question that waits for its answer costs no thread.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from rclpy.action import CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.errors import DelayedVlmError, ErrorCode
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.msg import SceneAnswer
from delayed_vlm_ros.ros.output.messages import feedback, fill_answer, fill_error, scene_answer
from delayed_vlm_ros.ros.services.channel import Channel, resume_running_handler
from delayed_vlm_ros.ros.services.goal_replies import BURST, PacedActionServer, is_cancelling
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer
from delayed_vlm_ros.ros.services.requests import choose_request_id
from delayed_vlm_ros.srv import AskScene

_LOG_PERIOD_SEC = 5.0
_CLIENT_MISTAKES = (ErrorCode.BAD_REQUEST, ErrorCode.UNKNOWN_CAMERA)


class Submit(Protocol):
    """Function that submits the question of a request or goal."""

    def __call__(
        self, message: Any, control: AskControl, on_progress: Callable[[Progress], None] | None
    ) -> Future[Answer]:
        """Return the future answer; see ``AskHandler.submit``."""


class AskServices:
    """Offers service and action in every state of the node, and publishes each answer on ``~/answers``.

    A goal is always accepted. If its question is refused, the goal ends immediately and the result has the reason.

    Args:
        node: Node that offers service and action.
        submit: Submits a question.
    """

    def __init__(self, node: Node, submit: Submit) -> None:
        self._node = node
        self._submit = submit
        self._closed = False
        self._changing_controls = threading.Lock()
        self._controls: dict[bytes, _GoalControl] = {}  # by goal id
        self._answers = node.create_publisher(SceneAnswer, "~/answers", 10)
        group = ReentrantCallbackGroup()
        self._service = node.create_service(
            AskScene, "ask_scene", self._on_request, qos_profile=BURST, callback_group=group
        )
        self._action = PacedActionServer(
            node,
            AskSceneAction,
            "ask_scene_stream",
            self._on_goal,
            callback_group=group,
            cancel_callback=self._on_cancel,
        )

    def close(self) -> None:
        """Stop publishing; called before the node is destroyed."""
        self._closed = True
        self._action.stop_pacing()

    def destroy(self) -> None:
        """Destroy the action server, which the node does not do."""
        self._action.destroy()

    async def _on_request(self, request: AskScene.Request, response: AskScene.Response) -> AskScene.Response:
        return await self._respond(request, response, AskControl(), None)

    async def _on_goal(self, goal: Any) -> AskSceneAction.Result:
        def publish_feedback(progress: Progress) -> None:
            self._try_publish(lambda: goal.publish_feedback(feedback(progress)))

        control = self._control_of(goal)
        publish_feedback(Progress(Stage.QUEUED))
        result = await self._respond(goal.request, AskSceneAction.Result(), control, publish_feedback)
        if self._closed:
            return result
        cancelled = control.cancel_requested and result.error_code == AskSceneAction.Result.CANCELLED
        try:
            if result.success:
                goal.succeed()
            elif cancelled and is_cancelling(goal):
                goal.canceled()
            else:
                goal.abort()
        finally:
            self._drop_control(goal)
        return result

    def _on_cancel(self, goal: Any) -> CancelResponse:
        control = self._control_of(goal)
        control.cancel_requested = True
        control.cancel()
        if not goal.is_active:  # it ended before its control was found
            self._drop_control(goal)
        return CancelResponse.ACCEPT

    def _control_of(self, goal: Any) -> _GoalControl:
        """Return the goal's control; made by the first of handler and cancellation, which may come before it."""
        with self._changing_controls:
            return self._controls.setdefault(bytes(goal.goal_id.uuid), _GoalControl())

    def _drop_control(self, goal: Any) -> None:
        with self._changing_controls:
            self._controls.pop(bytes(goal.goal_id.uuid), None)

    async def _respond(
        self, message: Any, response: Any, control: AskControl, on_progress: Callable[[Progress], None] | None
    ) -> Any:
        """Return the filled response. Never raises."""
        answer = None
        request_id = choose_request_id(message)
        try:
            answer = await self._answer(message, control, on_progress)
            fill_answer(response, answer, include_frames=message.include_frames)
        except DelayedVlmError as error:
            fill_error(response, error)
        except Exception as error:  # noqa: BLE001  a defect must not end the node; the client receives the error
            answer, response = None, type(response)()
            fill_error(response, error)
            self._node.get_logger().error(f"question {request_id} failed: {traceback.format_exc()}")
        response.request_id = request_id
        self._log(response)
        self._try_publish(lambda: self._answers.publish(scene_answer(message, response, answer)))
        return response

    async def _answer(
        self, message: Any, control: AskControl, on_progress: Callable[[Progress], None] | None
    ) -> Answer:
        channel = Channel[Progress](resume_running_handler(self._node))
        future = self._submit(message, control, None if on_progress is None else channel.put)
        try:
            future.add_done_callback(lambda _: channel.close())
            while reports := await channel.take():
                for progress in reports:
                    assert on_progress is not None  # noqa: S101  for the type checker: reports come only with it
                    on_progress(progress)
            return future.result()
        finally:
            del future  # an error's traceback holds this frame; the future would close the cycle

    def _log(self, response: Any) -> None:
        node_log, question = self._node.get_logger(), f"question {response.request_id}"
        if response.success:
            node_log.info(f"{question} answered in {response.metrics.total_latency:.2f} s")
        elif response.error_code in _CLIENT_MISTAKES:
            node_log.info(f"{question} rejected: {response.error_msg}")
        elif response.error_code == ErrorCode.INTERNAL:
            node_log.error(f"{question} failed: {response.error_msg}")
        else:
            node_log.info(f"{question} not answered: {response.error_msg}")

    def _try_publish(self, publish: Callable[[], None]) -> None:
        """Publish what does not decide the outcome of a question. Never raises."""
        if self._closed:
            return
        try:
            publish()
        except Exception as error:  # noqa: BLE001  for example when the middleware's queue is full
            self._node.get_logger().warning(
                f"cannot publish feedback or answer: {type(error).__name__}: {error}",
                throttle_duration_sec=_LOG_PERIOD_SEC,
            )


class _GoalControl(AskControl):
    """Control of a goal.

    Attributes:
        cancel_requested: Whether a client has cancelled the goal; closing the worker cancels it, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cancel_requested = False
