"""View of the conversation: question box, growing answers, the frames they are based on and their cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicegui import ui

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.inference.progress import Stage
from delayed_vlm_ros.web.backend import ALL_CAMERAS, AskOutcome, KeptFrame, Question, SceneState
from delayed_vlm_ros.web.components import block, button, markup, set_text, set_visible, text
from delayed_vlm_ros.web.conversation import Conversation, Exchange
from delayed_vlm_ros.web.evidence import EvidenceStrip
from delayed_vlm_ros.web.formatting import answer_latency, clock, quantity, sentence

SUGGESTIONS = ("What do you see?", "What happened?", "What appeared last?")

_PERIODS = {"All frames": 0, "Last 10 seconds": 10, "Last minute": 60, "Last 10 minutes": 600, "Last hour": 3600}
_SHARED = "All browsers share this conversation."
_FIRST_CAMERA = ""
_CLEAR_QUESTION = "clearQuestion()"  # in page.js
_STAGES = {
    Stage.QUEUED: "Waiting for the model…",
    Stage.ENCODING: "Encoding frames…",
    Stage.GENERATING: "Answering…",
}
_SEND_ON_ENTER = """(event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
}"""


@dataclass
class _Limits:
    """Limits of the next question, as in ``Question``."""

    camera: str = _FIRST_CAMERA
    last_sec: float = 0.0
    since_ns: int = 0
    until_ns: int = 0


class TalkPanel:
    """Question box and conversation.

    Args:
        conversation: Conversation of all visitors.
        on_open: Callback for a click on a frame, called with the frame and all frames of its answer.
    """

    def __init__(self, conversation: Conversation, on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None]) -> None:
        self._conversation = conversation
        self._on_open = on_open
        self._limits = _Limits()
        self._camera_names: tuple[str, ...] | None = None
        self._views: dict[int, _ExchangeView] = {}
        with block("section", "panel talk").props('data-view=talk aria-label="Talk"'):
            with block("header", "panel-head"):
                text("h2", "Talk")
                self._model = text("span", "", "quiet")
            text("p", _SHARED, "quiet small")
            self._error = text("p", "", "error ask-error").props("role=alert")
            with block("form", "ask") as form:  # first for the keyboard; page.css shows it below the answers
                self._question_box()
            with block("div", "talk-scroll"), block("div", "talk-inner"):
                self._introduction()
                self._exchanges = block("div", "exchanges").props('role=group aria-label="Conversation"')
            self._announced = text("p", "", "only-read-aloud").props("role=status")
            form.on(
                "submit",
                self._on_submit,
                js_handler="(event) => { event.preventDefault(); emit(event.target.question.value) }",
            )

    def _introduction(self) -> None:
        self._empty = block("div", "talk-empty")
        with self._empty:
            text("p", "Ask about what the camera has seen.", "lead")
            text("p", "Answers are based on the kept frames, old and new.", "quiet")
            with block("div", "suggestions"):
                for suggestion in SUGGESTIONS:
                    button(suggestion, self._asker(suggestion), "chip")

    def _asker(self, question: str) -> Callable[[], None]:
        return lambda: self._ask(question)

    def _question_box(self) -> None:
        with block("div", "ask-line"):
            box = block("textarea", "field").props(
                f"id=question name=question rows=1 maxlength={self._conversation.max_characters} "
                'placeholder="What do you want to know?" aria-label="Question" autocomplete=off enterkeyhint=send'
            )
            box.on("keydown", js_handler=_SEND_ON_ENTER)
            self._send = text("button", "Ask", "primary").props("type=submit")
            self._stop = button("Stop", self._conversation.stop, "stop")
        self._warnings = text("p", "", "warning").props("role=note")
        with block("div", "limits"):
            self._camera_choice = block("label", "choice")
            with block("label", "choice"):
                text("span", "Period", "choice-name")
                with block("select") as periods:
                    for name, seconds in _PERIODS.items():
                        text("option", name).props(f"value={seconds}")
                periods.on("change", self._on_period, js_handler="(event) => emit(event.target.value)")
            self._stamp_limit = button("", self._remove_limit, "chip limit").props('title="Remove this limit"')

    def limit(self, since_ns: int, until_ns: int) -> None:
        """Limit the next questions to stamps from ``since_ns`` to ``until_ns``; 0 leaves a limit unchanged."""
        self._limits.since_ns = since_ns or self._limits.since_ns
        self._limits.until_ns = until_ns or self._limits.until_ns
        since, until = self._limits.since_ns, self._limits.until_ns
        if since and until and since > until:  # the newer limit replaces the other one
            self._limits.since_ns, self._limits.until_ns = since_ns, until_ns
        self._update_limit()

    def limit_to(self, since_ns: int, until_ns: int) -> None:
        """Limit the next questions to stamps from ``since_ns`` to ``until_ns``; 0 removes a limit."""
        self._limits.since_ns, self._limits.until_ns = since_ns, until_ns
        self._update_limit()

    def _remove_limit(self) -> None:
        self._limits.since_ns = self._limits.until_ns = 0
        self._update_limit()

    def _update_limit(self) -> None:
        since, until = self._limits.since_ns, self._limits.until_ns
        set_text(self._stamp_limit, f"{' '.join(_stamp_limits(since, until))}  ✕")
        set_visible(self._stamp_limit, visible=bool(since or until))

    def _on_period(self, event: object) -> None:
        chosen = str(getattr(event, "args", "0"))
        self._limits.last_sec = next((float(sec) for sec in _PERIODS.values() if str(sec) == chosen), 0.0)

    def _on_camera(self, event: object) -> None:
        chosen = str(getattr(event, "args", ""))
        is_known = chosen == ALL_CAMERAS or chosen in (self._camera_names or ())
        self._limits.camera = chosen if is_known else _FIRST_CAMERA

    def _on_submit(self, event: object) -> None:
        self._ask(str(getattr(event, "args", "") or ""))

    def _ask(self, question: str) -> None:
        limits = self._limits
        try:
            self._conversation.ask(
                Question(question.strip(), limits.camera, limits.last_sec, limits.since_ns, limits.until_ns)
            )
        except DelayedVlmError as error:
            set_text(self._error, sentence(error))
        else:
            set_text(self._error, "")
            ui.run_javascript(_CLEAR_QUESTION)
        self.update_exchanges()

    def update(self, state: SceneState) -> None:
        """Show the model and the cameras of the current state."""
        set_text(self._model, _model(state))
        set_text(self._warnings, " ".join(map(sentence, state.warnings)))
        set_visible(self._warnings, visible=bool(state.warnings))
        names = tuple(camera.name for camera in state.cameras)
        if names != self._camera_names:
            self._camera_names = names
            self._update_camera_choice(names)
        self._update_limit()

    def _update_camera_choice(self, names: Sequence[str]) -> None:
        self._limits.camera = _FIRST_CAMERA
        self._camera_choice.clear()
        set_visible(self._camera_choice, visible=len(names) > 1)
        with self._camera_choice:
            text("span", "Camera", "choice-name")
            with block("select") as choice:
                for name in names:
                    text("option", name).props["value"] = name
                text("option", "all, one after another").props["value"] = ALL_CAMERAS
        choice.on("change", self._on_camera, js_handler="(event) => emit(event.target.value)")

    def update_exchanges(self) -> None:
        """Show the current questions and answers."""
        exchanges = self._conversation.exchanges
        set_visible(self._empty, visible=not exchanges)
        wanted = {exchange.number for exchange in exchanges}
        for number in [number for number in self._views if number not in wanted]:
            self._views.pop(number).element.delete()
        for exchange in exchanges:
            if exchange.number not in self._views:
                with self._exchanges:
                    self._views[exchange.number] = _ExchangeView(exchange, self._on_open)
            self._views[exchange.number].update()
        set_text(self._announced, _announcement(exchanges))
        is_running = self._conversation.running is not None
        set_visible(self._stop, visible=is_running)
        set_visible(self._send, visible=not is_running)


class _ExchangeView:
    """A question with its answer."""

    def __init__(self, exchange: Exchange, on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None]) -> None:
        self._exchange = exchange
        self._on_open = on_open
        self._is_complete = False
        self.element = block("article", "exchange")
        with self.element:
            with block("div", "asked"):
                text("p", exchange.question.text, "question")
                limits = _limits(exchange.question)
                if limits:
                    text("p", limits, "quiet small")
            self._answer = text("p", "", "answer")
            self._stage = text("p", "", "stage")
            self._details = block("div", "details")

    def update(self) -> None:
        if self._is_complete:
            return
        outcome = self._exchange.outcome
        progress = self._exchange.progress
        if outcome is not None:
            self._complete(outcome)
            return
        set_text(self._answer, progress.text)
        set_text(self._stage, "Stopping…" if self._exchange.is_stopping else _STAGES[progress.stage])

    def _complete(self, outcome: AskOutcome) -> None:
        self._is_complete = True
        set_text(self._answer, outcome.answer)
        set_visible(self._stage, visible=False)
        with self._details:
            if outcome.was_stopped:
                text("p", "Stopped.", "quiet")
            elif outcome.error:
                text("p", sentence(outcome.error), "error")
            if outcome.cost is not None:
                cost = outcome.cost
                frames = cost.frames_encoded + cost.frames_reused
                markup(_reuse_bar(cost.frames_reused, frames), "reuse")
                text(
                    "p",
                    f"{quantity(frames, 'frame')}: {cost.frames_encoded} encoded, {cost.frames_reused} reused\n"
                    f"{answer_latency(cost.first_token_sec, cost.total_sec)}",
                    "cost",
                )
            if outcome.frames_used:
                EvidenceStrip(outcome.frames_used, self._on_open, outcome.evidence)
            for warning in outcome.warnings:
                text("p", sentence(warning), "warning")


def _announcement(exchanges: Sequence[Exchange]) -> str:
    """Return what a screen reader says: the newest answer when it is complete, nothing while it grows."""
    outcome = exchanges[-1].outcome if exchanges else None
    if outcome is None:
        return ""
    return outcome.answer if not outcome.error else sentence(outcome.error)


def _model(state: SceneState) -> str:
    texts = {"loading": "loading the model", "failed": "the model failed to load", "ready": state.model}
    return texts.get(state.model_state, "")


def _limits(question: Question) -> str:
    limits = []
    if question.camera:
        limits.append("all cameras" if question.camera == ALL_CAMERAS else question.camera)
    if question.last_sec:
        limits.append(next(name.lower() for name, seconds in _PERIODS.items() if seconds == question.last_sec))
    return " · ".join([*limits, *_stamp_limits(question.since_ns, question.until_ns)])


def _stamp_limits(since_ns: int, until_ns: int) -> list[str]:
    limits = [f"from {clock(since_ns)}"] if since_ns else []
    return [*limits, f"up to {clock(until_ns)}"] if until_ns else limits


def _reuse_bar(reused: int, frames: int) -> str:
    share = 100 * reused / frames if frames else 0
    return f'<span style="width: {share:.1f}%"></span>'
