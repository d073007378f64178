"""The ``scene_memory`` lifecycle node: keeps selected frames of its cameras and answers questions about them.

Questions, marks and images for clients, key frames and mosaics, poses, and reports each have a callback group. The
default group has the lifecycle and parameter services. No group waits for another. The handler of a question is a
coroutine, which holds no thread while it waits for the answer. Images bypass the executor: each camera has a thread, so
a camera with large images delays no other.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from delayed_vlm_ros.errors import ConfigurationError, DelayedVlmError, ModelError, ModelNotReadyError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress
from delayed_vlm_ros.memory import PairIds
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.ros.input.poses import POSE_TYPES, PoseBuffer, PoseSubscription
from delayed_vlm_ros.ros.input.topic_types import image_topic_fault, pose_topic_fault
from delayed_vlm_ros.ros.input.transforms import TransformLookup, TransformPoses
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.output.memory_publisher import MemoryPublisher
from delayed_vlm_ros.ros.output.node_report import (
    CameraReport,
    LifecycleReport,
    ModelReport,
    NodeReport,
    QuestionReport,
)
from delayed_vlm_ros.ros.output.report_publisher import Reporter
from delayed_vlm_ros.ros.parameters import (
    QOS_GROUP,
    declare,
    read,
    read_or_default,
    specifications,
    unknown_name_warnings,
)
from delayed_vlm_ros.ros.process import EXIT_RESTART, run_node
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.context import NodeContext
from delayed_vlm_ros.ros.scene_memory.journal import Journal
from delayed_vlm_ros.ros.scene_memory.parameters import (
    SceneMemoryParameters,
    WatchParameters,
    validate_change,
    validate_parameters,
    watch_from,
    watch_names,
    watch_prefix,
)
from delayed_vlm_ros.ros.scene_memory.session import Session, build_session
from delayed_vlm_ros.ros.scene_memory.watches import AlertIds, Watches
from delayed_vlm_ros.ros.services.ask_services import AskServices
from delayed_vlm_ros.ros.services.find_handler import FoundInCameras
from delayed_vlm_ros.ros.services.find_services import FindServices
from delayed_vlm_ros.ros.services.journal_services import JournalServices
from delayed_vlm_ros.ros.services.memory_services import MemoryServices
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer
from delayed_vlm_ros.ros.services.watch_services import WatchServices
from delayed_vlm_ros.ros.time import steady_clock
from delayed_vlm_ros.srv import FindMoments
from delayed_vlm_ros.watches import Watch

# One for each callback that may take long: a transition or parameter, images for a client, images out, and all others.
THREADS = 4

_AUTOSTART_DELAY_SEC = 0.05
_MIN_FORWARD_JUMP = Duration(seconds=10)  # a simulation at 20 times real time may publish /clock at 10 Hz
_CLEANUP_TIMEOUT_SEC = 2.0
_CLOSE_TIMEOUT_SEC = 0.5

_SPECS = specifications(SceneMemoryParameters)

_SUCCESS = TransitionCallbackReturn.SUCCESS
_FAILURE = TransitionCallbackReturn.FAILURE
_ERROR = TransitionCallbackReturn.ERROR


class NodeInput(Protocol):
    """Input of the node while it is active."""

    def start(self) -> None:
        """Subscribe."""

    def close(self) -> None:
        """Unsubscribe."""


class SceneMemory(LoggingNode, LifecycleNode):
    """The node. Its cameras, memories and model are in a ``Session``, which exists from configure to cleanup."""

    def __init__(self) -> None:
        super().__init__("scene_memory")
        declare(self, SceneMemoryParameters)
        self._declare_watches()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._state = "unconfigured"
        self._error: Exception | None = None  # of the last transition
        self._session: Session | None = None
        self._closing_session: Session | None = None
        self._pair_ids = PairIds()
        self._alert_ids = AlertIds()
        self._device_lock = threading.Lock()
        self._session_lock = threading.Lock()  # between transitions and close()
        self._closed = False
        self.needs_restart = False  # read by ``run_node``
        self._inputs: list[NodeInput] = []
        self._logged_faults: set[str] = set()  # of topics
        self._pose_group = MutuallyExclusiveCallbackGroup()
        self._ask_services = AskServices(self, self._submit)
        self._memory_services = MemoryServices(self, self._cameras)
        self._find_services = FindServices(self, self._submit_search)
        self._watch_services = WatchServices(self, self)
        self._journal_services = JournalServices(self, self)
        self._memory_publisher = MemoryPublisher(self, self._cameras)
        self._reset_service = self.create_service(Trigger, "~/reset", self._on_reset)
        self._reporter = Reporter(self, self._report)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=_MIN_FORWARD_JUMP, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=self._on_clock_jump,
        )
        self._steady_clock = steady_clock()
        self._memory_publisher.start()
        self._reporter.start()
        self._watch_services.start()
        if read_or_default(self, _SPECS["autostart"]):
            self._autostart_timer = self.create_timer(_AUTOSTART_DELAY_SEC, self._autostart, clock=self._steady_clock)

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def _autostart(self) -> None:
        # In the default callback group, like the lifecycle services: transitions never overlap.
        self._autostart_timer.cancel()
        if self._state == "unconfigured" and self.trigger_configure() == _SUCCESS:
            self.trigger_activate()

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Validate the parameters, build the memories and start loading the model."""
        return self._transition("configure", self._configure, "inactive")

    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Start taking images and answering questions."""
        return self._transition("activate", self._activate, "active")

    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking images. The memory and the model are kept."""
        return self._transition("deactivate", self._deactivate, "inactive")

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the memory and free the device."""
        return self._transition("clean up", self._close_session, "unconfigured")

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the memory and free the device for good."""
        return self._transition("shut down", self._close_session, "finalized")

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a defect in a transition. The diagnostics keep reporting its error."""
        error = self._error
        result = self._transition("recover", self._close_session, "unconfigured")
        if result != _SUCCESS:
            self._state = "finalized"
        self._error = error
        return result

    def _transition(self, name: str, step: Callable[[], None], state: str) -> TransitionCallbackReturn:
        """Run a transition. Never raises: an invalid setting is a failure, a defect is an error."""
        try:
            step()
        except DelayedVlmError as error:
            self._error = error
            self.get_logger().error(f"cannot {name}: {error}")
            return _FAILURE
        except Exception as error:  # noqa: BLE001  rclpy would not log it
            self._error = error
            self.get_logger().error(f"cannot {name}: {traceback.format_exc()}")
            return _ERROR
        self._error = None
        self._state = state
        self.get_logger().info(f"{name}: done, the node is {state}")
        return _SUCCESS

    def _configure(self) -> None:
        parameters = read(self, SceneMemoryParameters)
        validate_parameters(parameters)
        clock = self.get_clock()
        context = NodeContext(
            resolve_topic=self.resolve_topic_name,
            now_ns=lambda: clock.now().nanoseconds,
            simulated=bool(self.get_parameter("use_sim_time").value),
            pair_ids=self._pair_ids,
            device_lock=self._device_lock,
            logger=self.get_logger(),
            end_process=self._end_process,
            stale_after_sec=lambda: float(read_or_default(self, _SPECS["stale_after_sec"])),
            publish_alert=self._watch_services.publish_alert,
            alert_ids=self._alert_ids,
        )
        session = build_session(parameters, context, self._watches_of_file(parameters))
        session.start()  # outside the lock: it may read files for seconds, and close() must not wait for them
        with self._session_lock:
            if not self._closed:
                self._session = session
                return
        session.close(0.0)

    def _declare_watches(self) -> None:
        """Declare the parameters of each watch in the parameter file; invalid names are reported at configure."""
        with suppress(ConfigurationError):
            for name in watch_names(read_or_default(self, _SPECS["watch_names"])):
                declare(self, WatchParameters, watch_prefix(name))

    def _watches_of_file(self, parameters: SceneMemoryParameters) -> tuple[Watch, ...]:
        names = watch_names(parameters.watch_names)
        return tuple(watch_from(name, read(self, WatchParameters, watch_prefix(name))) for name in names)

    def _end_process(self, reason: str) -> None:
        """Make ``run_node`` end the process, so that respawn starts a new one. Thread-safe."""
        self.get_logger().fatal(
            f"{reason}: the node ends with exit code {EXIT_RESTART}. launch (use_respawn:=true), systemd or Docker "
            "starts it again; without one, start it yourself"
        )
        self.needs_restart = True

    def _cameras(self) -> Mapping[str, CameraMemory]:
        session = self._session
        return session.cameras if session is not None else {}

    def _subscribe(self) -> None:
        cameras = tuple(self._cameras().values())
        try:
            for node_input in self._inputs_of(cameras):
                self._start(node_input)
            for camera in cameras:
                self.get_logger().info(f"camera {camera.name}: taking images from {camera.topic}")
            for warning in unknown_name_warnings(self, group=QOS_GROUP):
                self.get_logger().warning(warning)
        except BaseException:
            self._unsubscribe()
            raise

    def _inputs_of(self, cameras: Sequence[CameraMemory]) -> Iterator[NodeInput]:
        """Return the subscriptions to the cameras' images and poses; pose topics or TF."""
        for camera in cameras:
            yield ImageSubscription(self, camera)
            if isinstance(camera.poses, PoseBuffer):
                yield PoseSubscription(self, camera.pose_topic, camera.poses, self._pose_group)
        from_tf = [camera.poses for camera in cameras if isinstance(camera.poses, TransformPoses)]
        if from_tf:
            yield TransformLookup(self, from_tf, self._pose_group)

    def _start(self, node_input: NodeInput) -> None:
        with self._session_lock:
            if not self._closed:
                node_input.start()
                self._inputs.append(node_input)

    def _activate(self) -> None:
        self._subscribe()
        if self.watches is not None:
            self.watches.activate()

    def _deactivate(self) -> None:
        if self.watches is not None:
            self.watches.deactivate()
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        with self._session_lock:
            inputs, self._inputs = self._inputs, []
        for subscription in inputs:
            subscription.close()

    def _close_session(self) -> None:
        self._deactivate()
        with self._session_lock:
            session, self._session = self._session, None
            self._closing_session = session
        if session is not None and not session.close(_CLEANUP_TIMEOUT_SEC):
            self.get_logger().warning("the model is still computing: its memory is freed when it returns")
        self._closing_session = None

    def close(self) -> None:
        """End everything that waits. Called once, before the node is destroyed."""
        with self._session_lock:
            self._closed = True
            session = self._session if self._session is not None else self._closing_session
        if session is not None:
            session.watches.deactivate()  # before publishing ends: no alert may be counted as published
        self._ask_services.close()
        self._watch_services.close()
        self._unsubscribe()
        if session is not None:
            session.close(_CLOSE_TIMEOUT_SEC)

    def destroy_node(self) -> None:
        """Destroy the node with its action server."""
        self._ask_services.destroy()
        self._watch_services.destroy()
        super().destroy_node()

    # Services -------------------------------------------------------------------------------------------------------

    def _submit(
        self, message: Any, control: AskControl, on_progress: Callable[[Progress], None] | None
    ) -> Future[Answer]:
        handler = self._active_session().ask_handler
        return handler.submit(message, read(self, SceneMemoryParameters), control=control, on_progress=on_progress)

    def _submit_search(self, message: FindMoments.Request) -> Future[FoundInCameras]:
        return self._active_session().find_handler.submit(message, read(self, SceneMemoryParameters))

    def _active_session(self) -> Session:
        session = self._session
        if session is not None and self._state == "active":
            return session
        error = self._not_active()
        if session is not None:
            session.ask_handler.count_error(error)
        raise error

    @property
    def watches(self) -> Watches | None:
        """The standing questions; None while the node is not configured."""
        session = self._session
        return session.watches if session is not None else None

    @property
    def unavailable(self) -> str:
        """Why no watch can be checked; empty if they can."""
        session = self._session
        return session.model_fault if session is not None else ""

    def require_watches(self) -> Watches:
        """Return the standing questions.

        Raises:
            ModelNotReadyError: The node is not configured.
        """
        watches = self.watches
        if watches is None:
            raise self._not_active()
        return watches

    def require_journal(self) -> Journal | None:
        """Return the journal; None if it is off.

        Raises:
            ModelNotReadyError: The node is not configured.
        """
        session = self._session
        if session is None:
            raise self._not_active()
        return session.journal

    def watch_parameters(self) -> SceneMemoryParameters:
        """Return the present parameters."""
        return read(self, SceneMemoryParameters)

    def _not_active(self) -> ModelNotReadyError:
        reason = f" because of an error ({self._error})" if self._error else ""
        transitions = {"unconfigured": "configure and activate", "inactive": "activate"}.get(self._state)
        remedy = f"use the lifecycle transitions {transitions}" if transitions else "start it again"
        return ModelNotReadyError(f"the node is not active but {self._state}{reason}: {remedy}, then retry")

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        session = self._session
        if session is None:
            response.message = f"no memory to reset: the node is {self._state}"
            return response
        session.reset()
        response.success = True
        response.message = f"the memory of {', '.join(session.cameras)} is empty"
        self.get_logger().info(response.message)
        return response

    # Parameters and reports -----------------------------------------------------------------------------------------

    def _on_set_parameters(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        names = [spec.name for spec in _SPECS.values()]
        present = {name: self.get_parameter(name).value for name in names}
        try:
            validate_change(
                present, {change.name: change.value for change in changes}, configured=self._state != "unconfigured"
            )
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        session = self._session
        # Applied here because Humble has no callback after the change; nothing can refuse it any more.
        for change in changes:
            if change.name == _SPECS["sample_fps"].name and session is not None:
                for camera in session.cameras.values():
                    camera.set_sample_rate(_SPECS["sample_fps"].convert(change.value))
        return SetParametersResult(successful=True)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if jump.delta.nanoseconds == self.get_clock().now().nanoseconds:
            return  # from 0 to the first /clock message, which may arrive after the first image
        session = self._session
        for camera in session.cameras.values() if session is not None else ():
            camera.handle_clock_jump(jump.delta.nanoseconds * 1e-9)

    def _camera_report(self, camera: CameraMemory, *, receiving: bool) -> CameraReport:
        """Return a camera's report with the faults of its topics; log each fault once."""
        image = image_topic_fault(self, camera.topic, camera.message_type)
        pose = ""
        if isinstance(camera.poses, PoseBuffer):
            pose = pose_topic_fault(self, camera.pose_topic, camera.poses.message_type, POSE_TYPES)
        for fault in {image, pose} - {"", *self._logged_faults}:
            self._logged_faults.add(fault)
            self.get_logger().warning(f"camera {camera.name}: {fault}")
        return replace(camera.report(receiving=receiving), image_topic_fault=image, pose_topic_fault=pose)

    def _report(self) -> NodeReport:
        session = self._session
        error = str(self._error) if self._error else ""
        # Names as other nodes see them: the list includes this node.
        namesakes = self.get_node_names_and_namespaces().count((self.get_name(), self.get_namespace())) - 1
        lifecycle = LifecycleReport(self._state, error, max(0, namesakes))
        stale_after_sec = read_or_default(self, _SPECS["stale_after_sec"])
        if session is None:
            name = str(self.get_parameter("model.name").value)
            has_failed = isinstance(self._error, ModelError)
            model = ModelReport(name, "failed" if has_failed else "unloaded", "", error if has_failed else "", ())
            return NodeReport(lifecycle, (), (), model, QuestionReport(), stale_after_sec)
        receiving = self._state == "active"
        return NodeReport(
            lifecycle=lifecycle,
            cameras=tuple(self._camera_report(camera, receiving=receiving) for camera in session.cameras.values()),
            memories=tuple(session.memory_report(camera) for camera in session.cameras.values()),
            model=session.model_report(),
            questions=session.ask_handler.report(),
            watches=session.watches.runner.statuses(),
            watches_unavailable=session.model_fault,
            watches_error=session.watches.error,
            stale_after_sec=stale_after_sec,
            persistence=session.persistence.report() if session.persistence is not None else None,
            journal=session.journal.report() if session.journal is not None else None,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped. Return the process's exit code."""
    return run_node(SceneMemory, threads=THREADS, arguments=arguments, exit_process=True)


if __name__ == "__main__":
    sys.exit(main())
