"""scene_memory: remembers what a camera saw and answers questions about it. A lifecycle node.

Callback groups: questions have their own, marks and images out have their own, poses and reports have theirs, and the
default one keeps the lifecycle and parameter services. None waits for another. A question's handler is a coroutine and
holds no thread while it waits for the answer. Images come past the executor: each camera's are taken by a thread of
their own, so one whose images are large holds up no other.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from delayed_vlm_ros.errors import ConfigurationError, DelayedVlmError, ModelError, ModelNotReadyError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress
from delayed_vlm_ros.memory import PairIds
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.ros.input.poses import PoseSubscription
from delayed_vlm_ros.ros.output.memory_publisher import MemoryPublisher
from delayed_vlm_ros.ros.output.reporter import Reporter
from delayed_vlm_ros.ros.output.reports import NO_ASKS, LifecycleReport, ModelReport, NodeReport
from delayed_vlm_ros.ros.parameters import declare, read, specifications
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.scene_memory.parameters import (
    SceneMemoryParameters,
    check_change,
    check_together,
)
from delayed_vlm_ros.ros.scene_memory.session import NodeContext, Session, open_session
from delayed_vlm_ros.ros.services.ask_services import AskServices
from delayed_vlm_ros.ros.services.memory_services import MemoryServices
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer

# One for each callback that may take long: a transition or parameter, images for a client, images out, and all others.
THREADS = 4

_AUTOSTART_DELAY_SEC = 0.05
_FORWARD_JUMP = Duration(seconds=10)  # a simulation at twenty times its speed may tell the time ten times a second
_CLEANUP_TIMEOUT_SEC = 2.0
_STOP_TIMEOUT_SEC = 0.5

_SAMPLE_FPS = specifications(SceneMemoryParameters)["sample_fps"].name

_SUCCESS = TransitionCallbackReturn.SUCCESS
_FAILURE = TransitionCallbackReturn.FAILURE
_ERROR = TransitionCallbackReturn.ERROR


class SceneMemory(LifecycleNode):
    """The node. What it does lives in its ``Session``, which it has from configure to cleanup."""

    def __init__(self) -> None:
        super().__init__("scene_memory")
        declare(self, SceneMemoryParameters)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._state = "unconfigured"
        self._fault: Exception | None = None
        self._session: Session | None = None
        self._closing: Session | None = None  # that of before, while it ends
        self._pair_ids = PairIds()
        self._device = threading.Lock()
        self._opening = threading.Lock()  # between transitions and the end of the process
        self._ended = False
        self._subscriptions_of_cameras: list[ImageSubscription | PoseSubscription] = []
        self._pose_group = MutuallyExclusiveCallbackGroup()
        self._ask_services = AskServices(self, self._ask)
        self._memory_services = MemoryServices(self, self._cameras)
        self._images_out = MemoryPublisher(self, self._cameras)
        self._reset_service = self.create_service(Trigger, "~/reset", self._on_reset)
        self._reporter = Reporter(self, self._report)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=_FORWARD_JUMP, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=self._on_clock_jump,
        )
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self.get_parameter("autostart").value:
            self._autostart_timer = self.create_timer(_AUTOSTART_DELAY_SEC, self._autostart, clock=self._steady)

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def _autostart(self) -> None:
        # In the default callback group like the lifecycle services: transitions never overlap.
        self._autostart_timer.cancel()
        if self._state == "unconfigured" and self.trigger_configure() == _SUCCESS:
            self.trigger_activate()

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, make the memory, start loading the model."""
        return self._transition("configure", self._configure, "inactive")

    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Take images and answer questions."""
        return self._transition("activate", self._subscribe, "active")

    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more images; what is kept stays, and so does the model."""
        return self._transition("deactivate", self._unsubscribe, "inactive")

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Forget everything and free the device."""
        return self._transition("clean up", self._release, "unconfigured")

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Forget everything and free the device, for good."""
        return self._transition("shut down", self._release, "finalized")

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """After a defect in a transition: back to unconfigured, keeping the reason for the diagnostics."""
        fault = self._fault
        result = self._transition("recover", self._release, "unconfigured")
        if result != _SUCCESS:
            self._state = "finalized"
        self._fault = fault
        return result

    def _transition(self, name: str, step: Callable[[], None], state: str) -> TransitionCallbackReturn:
        """Take a step of the lifecycle; never raises. A wrong setting is a failure, a defect an error."""
        try:
            step()
        except DelayedVlmError as error:
            self._fault = error
            self.get_logger().error(f"cannot {name}: {error}")
            return _FAILURE
        except Exception as error:  # noqa: BLE001  rclpy would swallow it without a word
            self._fault = error
            self.get_logger().error(f"cannot {name}: {traceback.format_exc()}")
            return _ERROR
        self._fault = None
        self._state = state
        self.get_logger().info(f"{name}: done, the node is {state}")
        return _SUCCESS

    def _configure(self) -> None:
        parameters = read(self, SceneMemoryParameters)
        check_together(parameters)
        clock = self.get_clock()
        surroundings = NodeContext(
            resolve_topic=self.resolve_topic_name,
            now_ns=lambda: clock.now().nanoseconds,
            simulated=bool(self.get_parameter("use_sim_time").value),
            pair_ids=self._pair_ids,
            device=self._device,
            logger=self.get_logger(),
        )
        session = open_session(parameters, surroundings)  # may read files for long, which no end must wait for
        with self._opening:
            if not self._ended:
                self._session = session
                return
        session.close(0.0)

    def _cameras(self) -> Mapping[str, CameraMemory]:
        session = self._session
        return session.cameras if session is not None else {}

    def _subscribe(self) -> None:
        try:
            for camera in self._cameras().values():
                self._subscribe_to(camera)
        except BaseException:
            self._unsubscribe()
            raise

    def _subscribe_to(self, camera: CameraMemory) -> None:
        with self._opening:
            if self._ended:
                return
            poses = PoseSubscription(self, camera.pose_topic, camera.poses, self._pose_group)
            for subscription in (ImageSubscription(self, camera), poses):
                subscription.start()
                self._subscriptions_of_cameras.append(subscription)
        self.get_logger().info(f"camera {camera.name}: taking images from {camera.topic}")

    def _unsubscribe(self) -> None:
        with self._opening:
            ending, self._subscriptions_of_cameras = self._subscriptions_of_cameras, []
        for subscription in ending:
            subscription.close()

    def _release(self) -> None:
        self._unsubscribe()
        with self._opening:
            session, self._session = self._session, None
            self._closing = session
        if session is not None and not session.close(_CLEANUP_TIMEOUT_SEC):
            self.get_logger().warning("the model is still busy: its memory is freed as soon as it returns")
        self._closing = None

    def close(self) -> None:
        """Release all that wait; called once, before the process ends."""
        with self._opening:
            self._ended = True
            session = self._session if self._session is not None else self._closing
        self._ask_services.close()
        self._unsubscribe()
        if session is not None:
            session.close(_STOP_TIMEOUT_SEC)

    def destroy_node(self) -> None:
        """Destroy the node and all that is its."""
        self._ask_services.destroy()
        super().destroy_node()

    # Services -------------------------------------------------------------------------------------------------------

    def _ask(self, message: Any, control: AskControl, on_progress: Callable[[Progress], None] | None) -> Future[Answer]:
        questions = self._active_session().questions
        return questions.submit(message, read(self, SceneMemoryParameters), control=control, on_progress=on_progress)

    def _active_session(self) -> Session:
        session = self._session
        if session is not None and self._state == "active":
            return session
        error = self._not_active()
        if session is not None:
            session.questions.count_failure(error)
        raise error

    def _not_active(self) -> ModelNotReadyError:
        reason = f" because of a fault ({self._fault})" if self._fault else ""
        transitions = {"unconfigured": "configure and activate", "inactive": "activate"}.get(self._state)
        remedy = f"bring it up with the lifecycle transitions {transitions}" if transitions else "start it again"
        return ModelNotReadyError(f"the node is not active but {self._state}{reason}: {remedy}, then ask again")

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        session = self._session
        if session is None:
            response.message = f"nothing to forget: the node is {self._state}"
            return response
        session.reset()
        response.success = True
        response.message = f"the memory of {', '.join(session.cameras)} is empty"
        self.get_logger().info(response.message)
        return response

    # Parameters and reports -----------------------------------------------------------------------------------------

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        names = [spec.name for spec in specifications(SceneMemoryParameters).values()]
        present = {name: self.get_parameter(name).value for name in names}
        try:
            check_change(
                present, {change.name: change.value for change in changes}, configured=self._state != "unconfigured"
            )
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        session = self._session
        # Here and not once they are set, since Humble has no callback for that; nothing can refuse them any more.
        for change in changes:
            if change.name == _SAMPLE_FPS and session is not None:
                for camera in session.cameras.values():
                    camera.sample_at(float(change.value))
        return SetParametersResult(successful=True)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if jump.delta.nanoseconds == self.get_clock().now().nanoseconds:
            return  # from nothing to the first time told, which may come later than the first image
        session = self._session
        for camera in session.cameras.values() if session is not None else ():
            camera.clock_jumped(jump.delta.nanoseconds * 1e-9)

    def _report(self) -> NodeReport:
        session = self._session
        fault = str(self._fault) if self._fault else ""
        # The name as others see it, so that this one is among them.
        namesakes = self.get_node_names_and_namespaces().count((self.get_name(), self.get_namespace())) - 1
        lifecycle = LifecycleReport(self._state, fault, max(0, namesakes))
        stale_after_sec = float(self.get_parameter("diagnostics.stale_after_sec").value)
        if session is None:
            name = str(self.get_parameter("model.name").value)
            failed = isinstance(self._fault, ModelError)
            model = ModelReport(name, "failed" if failed else "unloaded", "", fault if failed else "", ())
            return NodeReport(lifecycle, (), (), model, NO_ASKS, stale_after_sec)
        receiving = self._state == "active"
        return NodeReport(
            lifecycle=lifecycle,
            cameras=tuple(camera.report(receiving=receiving) for camera in session.cameras.values()),
            memories=tuple(session.memory_report(camera) for camera in session.cameras.values()),
            model=session.model_report(),
            asks=session.questions.report(),
            stale_after_sec=stale_after_sec,
            persistence=session.persistence.report() if session.persistence is not None else None,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; gives the process's exit code."""
    return run_node(SceneMemory, threads=THREADS, arguments=arguments, exit_process=True)


if __name__ == "__main__":
    sys.exit(main())
