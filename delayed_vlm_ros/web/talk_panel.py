"""Questions and answers: the box, the answers as they come, what they are based on and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicegui import ui

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.inference.progress import Stage
from delayed_vlm_ros.web.backend import ALL_CAMERAS, AskOutcome, KeptFrame, Question, SceneState
from delayed_vlm_ros.web.components import FrameCard, block, button, drawing, say, show, text
from delayed_vlm_ros.web.conversation import Conversation, Exchange
from delayed_vlm_ros.web.formatting import clock, count_of, latency

SUGGESTIONS = ("What do you see?", "What happened?", "What appeared last?")

_RANGES = {"Everything kept": 0, "Last 10 seconds": 10, "Last minute": 60, "Last 10 minutes": 600, "Last hour": 3600}
_FIRST, _ALL = "", ALL_CAMERAS
_CLEAR_QUESTION = "clearQuestion()"  # in page.js
_STAGES = {
    Stage.QUEUED: "Waiting for the model …",
    Stage.ENCODING: "Looking at the kept frames …",
    Stage.GENERATING: "Answering …",
}


@dataclass
class _Limits:
    """What the next question is limited to; see ``Question``."""

    camera: str = _FIRST
    last_sec: float = 0.0
    since_ns: int = 0
    until_ns: int = 0


class TalkPanel:
    """The conversation.

    Args:
        conversation: Where questions go.
        opened: Called with a moment that somebody chooses, and its neighbours.
    """

    def __init__(self, conversation: Conversation, opened: Callable[[KeptFrame, Sequence[KeptFrame]], None]) -> None:
        self._conversation = conversation
        self._opened = opened
        self._limits = _Limits()
        self._cameras: tuple[str, ...] = ()
        self._shown: dict[int, _ExchangeView] = {}
        with block("section", "panel talk").props('data-view=talk aria-label="Talk"'):
            with block("header", "panel-head"):
                text("h2", "Talk")
                self._model = text("span", "", "quiet")
            with block("div", "talk-scroll"), block("div", "talk-inner"):
                self._start()
                self._exchanges = block("div", "exchanges").props("aria-live=polite")
            self._refused = text("p", "", "error").props("role=alert")
            with block("form", "ask") as form:
                self._question_box()
            form.on(
                "submit",
                self._submitted,
                js_handler="(event) => { event.preventDefault(); emit(event.target.question.value) }",
            )

    def _start(self) -> None:
        self._empty = block("div", "talk-empty")
        with self._empty:
            text("p", "Ask about what the camera has seen.", "lead")
            text("p", "Answers are made from the kept moments, the old ones and the newest.", "quiet")
            with block("div", "suggestions"):
                for suggestion in SUGGESTIONS:
                    button(suggestion, lambda asked=suggestion: self._ask(asked), "chip")

    def _question_box(self) -> None:
        with block("div", "limits"):
            self._camera_choice = block("label", "choice")
            with block("label", "choice"):
                text("span", "About", "choice-name")
                with block("select") as ranges:
                    for name, seconds in _RANGES.items():
                        text("option", name).props(f"value={seconds}")
                ranges.on("change", self._range_chosen, js_handler="(event) => emit(event.target.value)")
            self._moment_limit = button("", self._unlimit, "chip limit")
        with block("div", "ask-line"):
            box = block("textarea", "field").props(
                f"id=question name=question rows=1 maxlength={self._conversation.max_characters} "
                'placeholder="What do you want to know?" aria-label="Question" autocomplete=off enterkeyhint=send'
            )
            box.on("keydown", js_handler=_SEND_ON_ENTER)
            self._send = text("button", "Ask", "primary").props("type=submit")
            self._stop = button("Stop", self._conversation.stop, "stop")

    def limit(self, since_ns: int, until_ns: int) -> None:
        """Limit the next questions to the time from or up to a moment; 0 leaves that one as it is."""
        self._limits.since_ns = since_ns or self._limits.since_ns
        self._limits.until_ns = until_ns or self._limits.until_ns
        since, until = self._limits.since_ns, self._limits.until_ns
        if since and until and since > until:  # the one that was chosen last counts
            self._limits.since_ns, self._limits.until_ns = since_ns, until_ns
        self._show_limit()

    def _unlimit(self) -> None:
        self._limits.since_ns = self._limits.until_ns = 0
        self._show_limit()

    def _show_limit(self) -> None:
        since, until = self._limits.since_ns, self._limits.until_ns
        words = [f"from {clock(since)}"] if since else []
        words += [f"up to {clock(until)}"] if until else []
        say(self._moment_limit, f"{' '.join(words)}  ✕")

    def _range_chosen(self, event: object) -> None:
        chosen = str(getattr(event, "args", "0"))
        self._limits.last_sec = next((float(sec) for sec in _RANGES.values() if str(sec) == chosen), 0.0)

    def _camera_chosen(self, event: object) -> None:
        chosen = str(getattr(event, "args", ""))
        self._limits.camera = chosen if chosen == _ALL or chosen in self._cameras else _FIRST

    def _submitted(self, event: object) -> None:
        self._ask(str(getattr(event, "args", "") or ""))

    def _ask(self, asked: str) -> None:
        limits = self._limits
        question = Question(asked.strip(), limits.camera, limits.last_sec, limits.since_ns, limits.until_ns)
        try:
            self._conversation.ask(question)
        except DelayedVlmError as error:
            say(self._refused, str(error))
        else:
            say(self._refused, "")
            ui.run_javascript(_CLEAR_QUESTION)
        self.follow()

    def show(self, state: SceneState) -> None:
        """Bring it up to date with the scene."""
        say(self._model, _model(state))
        names = tuple(camera.name for camera in state.cameras)
        if names != self._cameras:
            self._cameras = names
            self._offer_cameras()
        show(self._moment_limit, visible=bool(self._limits.since_ns or self._limits.until_ns))

    def _offer_cameras(self) -> None:
        self._limits.camera = _FIRST
        self._camera_choice.clear()
        show(self._camera_choice, visible=len(self._cameras) > 1)
        with self._camera_choice:
            text("span", "Camera", "choice-name")
            with block("select") as choice:
                for name in self._cameras:
                    text("option", name).props["value"] = name
                text("option", "all, one after the other").props["value"] = _ALL
        choice.on("change", self._camera_chosen, js_handler="(event) => emit(event.target.value)")

    def follow(self) -> None:
        """Bring questions and answers up to date."""
        exchanges = self._conversation.exchanges
        show(self._empty, visible=not exchanges)
        wanted = {exchange.number for exchange in exchanges}
        for number in [number for number in self._shown if number not in wanted]:
            self._shown.pop(number).element.delete()
        for exchange in exchanges:
            if exchange.number not in self._shown:
                with self._exchanges:
                    self._shown[exchange.number] = _ExchangeView(exchange, self._opened)
            self._shown[exchange.number].follow()
        is_running = self._conversation.running is not None
        show(self._stop, visible=is_running)
        show(self._send, visible=not is_running)


class _ExchangeView:
    """One question with its answer."""

    def __init__(self, exchange: Exchange, opened: Callable[[KeptFrame, Sequence[KeptFrame]], None]) -> None:
        self._exchange = exchange
        self._opened = opened
        self._is_complete = False
        self.element = block("article", "exchange")
        with self.element:
            with block("div", "asked"):
                text("p", exchange.question.text, "question")
                limits = _limits_in_words(exchange.question)
                if limits:
                    text("p", limits, "quiet small")
            self._answer = text("p", "", "answer")
            self._stage = text("p", "", "stage")
            self._rest = block("div", "rest")

    def follow(self) -> None:
        if self._is_complete:
            return
        outcome = self._exchange.outcome
        progress = self._exchange.progress
        if outcome is not None:
            self._complete(outcome)
            return
        say(self._answer, progress.text)
        say(self._stage, "Stopping …" if self._exchange.is_stopping else _STAGES[progress.stage])

    def _complete(self, outcome: AskOutcome) -> None:
        self._is_complete = True
        say(self._answer, outcome.answer)
        show(self._stage, visible=False)
        with self._rest:
            if outcome.was_stopped:
                text("p", "Stopped.", "quiet")
            elif outcome.error:
                text("p", outcome.error, "error")
            if outcome.cost is not None:
                cost = outcome.cost
                frames = cost.frames_encoded + cost.frames_reused
                drawing(_share_bar(cost.frames_reused, frames), "reuse")
                text(
                    "p",
                    f"{count_of(frames, 'frame')}: {cost.frames_encoded} encoded, {cost.frames_reused} re-used · first "
                    f"word after {latency(cost.first_token_sec)} · {latency(cost.total_sec)} in all",
                    "cost",
                )
            if outcome.frames_used:
                self._show_moments(outcome.frames_used)
            for notice in outcome.warnings:
                text("p", notice, "notice")

    def _show_moments(self, moments: Sequence[KeptFrame]) -> None:
        with block("div", "used").props('role=group aria-label="Frames used"'):
            for moment in reversed(moments):
                FrameCard(moment, clock(moment.stamp_ns), lambda chosen: self._opened(chosen, moments))


def _model(state: SceneState) -> str:
    words = {"loading": "the model is loading", "failed": "the model could not be loaded", "ready": state.model}
    return words.get(state.model_state, "")


def _limits_in_words(question: Question) -> str:
    words = []
    if question.camera:
        words.append("all cameras" if question.camera == ALL_CAMERAS else f"camera {question.camera}")
    if question.last_sec:
        words.append(next(name.lower() for name, seconds in _RANGES.items() if seconds == question.last_sec))
    if question.since_ns:
        words.append(f"from {clock(question.since_ns)}")
    if question.until_ns:
        words.append(f"up to {clock(question.until_ns)}")
    return " · ".join(words)


def _share_bar(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0
    return f'<span style="width: {share:.1f}%"></span>'


_SEND_ON_ENTER = """(event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
}"""
