"""Questions to a ``scene_memory`` node by its action, for callers in other threads than the executor's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.action import ActionClient
from rclpy.node import Node

from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.time import nanoseconds_of
from delayed_vlm_ros.web.backend import AnswerCost, AskOutcome, KeptFrame, Question

_IDLE_REPORTS = 3  # of a node that knows nothing of our ask: it was started again meanwhile


class RemoteAsks:
    """The action's client.

    Args:
        node: The node to ask from; everything happens in its executor's thread.
        nobody: Says whom a question could not be put to, and what to do.
    """

    def __init__(self, node: Node, no_server_message: Callable[[], str]) -> None:
        self._node = node
        self._nobody = no_server_message
        self._client = ActionClient(node, AskScene, "ask_scene_stream")
        self._running: set[RemoteAsk] = set()

    def ask(
        self, question: Question, on_progress: Callable[[Progress], None], on_done: Callable[[AskOutcome], None]
    ) -> RemoteAsk:
        """Put a question; see ``Backend.ask``."""
        ask = RemoteAsk(question, on_progress, on_done, self._in_executor, self._running.discard)
        self._in_executor(lambda: self._send(ask))
        return ask

    def _send(self, ask: RemoteAsk) -> None:
        if not self._client.server_is_ready():
            ask.end(AskOutcome(error=self._nobody()))
            return
        self._running.add(ask)
        ask.send(self._client, client_id=self._node.get_fully_qualified_name())

    def reported(self, *, is_busy: bool) -> None:
        """Hear whether the node has anything to answer; in the executor's thread, for each of its reports.

        A node that is started again has forgotten what it was asked, and nobody else would say so.
        """
        for ask in tuple(self._running):
            ask.reported(is_busy=is_busy, no_server_message=self._nobody)

    def lost(self) -> None:
        """Hear that the node is silent."""
        for ask in tuple(self._running):
            ask.end(AskOutcome(answer=ask.text, error=self._nobody()))

    def destroy(self) -> None:
        """Take the client down."""
        self._client.destroy()

    def _in_executor(self, act: Callable[[], Any]) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.create_task(act)


class RemoteAsk:
    """One question on its way. Everything but ``stop`` happens in the executor's thread."""

    def __init__(
        self,
        question: Question,
        progress: Callable[[Progress], None],
        ended: Callable[[AskOutcome], None],
        in_executor: Callable[[Callable[[], Any]], None],
        done: Callable[[RemoteAsk], None],
    ) -> None:
        self._question = question
        self._progress = progress
        self._ended = ended
        self._in_executor = in_executor
        self._done = done
        self._goal: Any = None
        self._is_stopping = False
        self._has_ended = False
        self._idle_reports = 0
        self.text = ""

    def stop(self) -> None:
        """See ``RunningQuestion``."""
        self._in_executor(self._cancel)

    def _cancel(self) -> None:
        self._is_stopping = True
        if self._goal is not None and not self._has_ended:
            self._goal.cancel_goal_async()

    def send(self, client: ActionClient, client_id: str) -> None:
        """Send the goal."""
        question = self._question
        goal = AskScene.Goal(
            question=question.text,
            camera=question.camera,
            last_sec=question.last_sec,
            since=time_message(question.since_ns),
            until=time_message(question.until_ns),
            client_id=client_id,
        )
        client.send_goal_async(goal, feedback_callback=self._on_feedback).add_done_callback(self._on_accepted)

    def _on_accepted(self, future: Any) -> None:
        goal = future.result()
        if goal is None or not goal.accepted:
            self.end(AskOutcome(error="scene_memory has refused the question: see its log."))
            return
        self._goal = goal
        goal.get_result_async().add_done_callback(lambda done: self._on_result(done.result().result))
        if self._is_stopping:
            self._cancel()

    def _on_feedback(self, message: Any) -> None:
        feedback = message.feedback
        self._idle_reports = 0
        self.text = feedback.text
        if not self._has_ended:
            self._progress(Progress(Stage(feedback.stage), feedback.text, feedback.answer_tokens))

    def _on_result(self, result: Any) -> None:
        if result.success:
            self.end(outcome_of(result))
            return
        was_stopped = self._is_stopping and result.error_code == AskScene.Result.CANCELLED
        self.end(AskOutcome(answer=self.text, error=f"{result.error_msg}.", was_stopped=was_stopped))

    def reported(self, *, is_busy: bool, no_server_message: Callable[[], str]) -> None:
        """See ``RemoteAsks.reported``."""
        self._idle_reports = 0 if is_busy else self._idle_reports + 1
        if self._idle_reports >= _IDLE_REPORTS:
            self.end(
                AskOutcome(
                    answer=self.text,
                    error="scene_memory was started again while it was answering, and knows nothing of the question "
                    "any more: ask again."
                    if self._goal is not None
                    else no_server_message(),
                )
            )

    def end(self, outcome: AskOutcome) -> None:
        """Tell the outcome, once."""
        if not self._has_ended:
            self._has_ended = True
            self._done(self)
            self._ended(outcome)


def outcome_of(result: Any) -> AskOutcome:
    """The outcome of an ``AskScene`` result that is a success."""
    metrics = result.metrics
    return AskOutcome(
        answer=result.answer,
        frames_used=tuple(moment_of(frame) for frame in result.frames_used),
        cost=AnswerCost(
            metrics.time_to_first_token, metrics.total_latency, metrics.frames_encoded, metrics.frames_reused
        ),
        warnings=tuple(metrics.warnings),
    )


def moment_of(frame: Any) -> KeptFrame:
    """A ``KeyFrame`` message as the page has it."""
    return KeptFrame(
        id=int(frame.id),
        camera=frame.camera,
        stamp_ns=nanoseconds_of(frame.header.stamp),
        end_stamp_ns=nanoseconds_of(frame.end_stamp),
        importance=float(frame.importance),
        reason=frame.reason,
        in_star=frame.in_star,
        in_stream=frame.in_stream,
        marked=frame.marked,
        label=frame.label,
    )
