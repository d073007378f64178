"""View of the standing questions: their state and cost, a form for new ones, and the last alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nicegui import ui

from delayed_vlm_ros.errors import BadRequestError, DelayedVlmError
from delayed_vlm_ros.watches import Level, Watch
from delayed_vlm_ros.watches.watch import ALERTS_KEPT, MAX_NAME_CHARACTERS
from delayed_vlm_ros.web.backend import Backend, KeptFrame, SceneState, WatchAlert, WatchedQuestion
from delayed_vlm_ros.web.components import alert_description, block, button, set_text, set_visible, text, thumbnail
from delayed_vlm_ros.web.conversation import check_text
from delayed_vlm_ros.web.formatting import clock, sentence

LEVELS = {Level.YES: "Yes", Level.NO: "No", Level.UNKNOWN: "Unknown", Level.INACTIVE: "Inactive"}
"""Names of the levels on the page."""

_WINDOWS = {"Last 5 seconds": 5.0, "Last 10 seconds": 10.0, "Last 30 seconds": 30.0, "All frames": 0.0}
_PERIODS = {"every second": 1.0, "every 2 seconds": 2.0, "every 10 seconds": 10.0, "every minute": 60.0}
_EXPLANATION = (
    "The robot asks a standing question again and again, and reports when the answer changes between no and yes. All "
    "browsers share these questions."
)
_FIELDS = ("question", "camera", "last", "period")
_SUBMIT = (
    "(event) => { event.preventDefault(); const fields = event.target.elements; "
    f"emit({list(_FIELDS)}.map((name) => fields[name] ? fields[name].value : '')) }}"
)
_CLEAR_QUESTION = "document.querySelector('.watch-form input').value = ''"


class WatchesPanel:
    """Standing questions of all cameras.

    Args:
        backend: Scene memory that asks them.
        max_characters: Maximum length of a question, in characters.
        on_open: Callback for a click on an alert, called with the first frame of its evidence and all of them.
        on_change: Callback after a question was added or removed.
    """

    def __init__(
        self,
        backend: Backend,
        max_characters: int,
        on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None],
        on_change: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._max_characters = max_characters
        self._on_change = on_change
        self._state = SceneState(connected=False)
        self._camera_names: tuple[str, ...] | None = None
        self._rows: dict[str, _Row] = {}
        with block("section", "panel watches").props('data-view=watches aria-label="Watches"'):
            with block("header", "panel-head"):
                text("h2", "Watches")
                self._counts = text("span", "", "quiet")
            self._empty = text("p", _EXPLANATION, "empty small")
            self._list = block("ul", "watch-list").props('aria-label="All watches"')
            self._form()
            self._error = text("p", "", "error").props("role=alert")
            self._alerts = _AlertStrip(on_open)

    def _form(self) -> None:
        with block("form", "watch-form") as form:
            block("input", "field").props(
                f"name=question maxlength={self._max_characters} "
                'placeholder="Is the door open?" aria-label="New watch" autocomplete=off'
            )
            self._camera_choice = block("label", "choice")
            _choice("Window", "last", _WINDOWS, Watch.last_sec)
            _choice("Check", "period", _PERIODS, Watch.period_sec)
            text("button", "Watch", "primary").props("type=submit")
        form.on("submit", self._add, js_handler=_SUBMIT)

    def update(self, state: SceneState) -> None:
        """Show the current state."""
        self._state = state
        watches = state.watches
        names = tuple(camera.name for camera in state.cameras)
        if names != self._camera_names:
            self._camera_names = names
            self._update_camera_choice(names)
        set_text(self._counts, _counts(watches))
        set_visible(self._empty, visible=not watches)
        set_visible(self._list, visible=bool(watches))
        wanted = {one.watch.name for one in watches}
        for name in [name for name in self._rows if name not in wanted]:
            self._rows.pop(name).element.delete()
        for one in watches:
            if one.watch.name not in self._rows:
                with self._list:
                    self._rows[one.watch.name] = _Row(one.watch.name, self._remove)
            self._rows[one.watch.name].update(one, names)
        self._alerts.update(state.alerts[-ALERTS_KEPT:])

    def _update_camera_choice(self, names: Sequence[str]) -> None:
        self._camera_choice.clear()
        set_visible(self._camera_choice, visible=len(names) > 1)
        if len(names) > 1:
            with self._camera_choice:
                text("span", "Camera", "choice-name")
                with block("select").props("name=camera"):
                    for name in names:
                        text("option", name).props["value"] = name

    async def _add(self, event: object) -> None:
        values = getattr(event, "args", None)
        try:
            watch = requested_watch(values, self._state, self._max_characters)
            await asyncio.to_thread(self._backend.watch, watch)
        except DelayedVlmError as error:
            set_text(self._error, sentence(error))
        else:
            set_text(self._error, "")
            ui.run_javascript(_CLEAR_QUESTION)
            self._on_change()

    async def _remove(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._backend.unwatch, name)
        except DelayedVlmError as error:
            set_text(self._error, sentence(error))
        else:
            set_text(self._error, "")
            self._on_change()


def _choice(label: str, name: str, options: dict[str, float], default: float) -> None:
    with block("label", "choice"):
        text("span", label, "choice-name")
        with block("select").props(f"name={name}"):
            for option, seconds in options.items():
                shown = text("option", option).props(f"value={seconds:g}")
                if seconds == default:
                    shown.props("selected")


def requested_watch(values: object, state: SceneState, max_characters: int) -> Watch:
    """Return the standing question that a visitor has requested.

    Args:
        values: Question, camera, window and period, as the browser sends them.
        state: Current state; the new name is in no other standing question.
        max_characters: Maximum length of the question.

    Raises:
        BadRequestError: The question is empty, too long, or asked already.
    """
    texts = [str(value or "") for value in values] if isinstance(values, list) else []
    if len(texts) != len(_FIELDS):
        raise BadRequestError("the browser sent an incomplete form: reload the page")
    question, camera, last, period = texts
    question = question.strip()
    check_text(question, max_characters)
    present = [one.watch for one in state.watches]
    watch = Watch(
        name=_unused_name(question, {one.name for one in present}),
        question=question,
        camera=camera if state.camera(camera) is not None else "",
        last_sec=_selected(last, _WINDOWS, Watch.last_sec),
        period_sec=_selected(period, _PERIODS, Watch.period_sec),
    )
    first = state.cameras[0].name if state.cameras else ""
    if any(
        (one.question, one.camera, one.last_sec) == (question, watch.camera or first, watch.last_sec) for one in present
    ):
        raise BadRequestError("this question is asked already: choose another window, or remove the other one first")
    return watch


def _selected(value: str, options: dict[str, float], default: float) -> float:
    return next((seconds for seconds in options.values() if f"{seconds:g}" == value), default)


def _unused_name(question: str, names: set[str]) -> str:
    """Return the start of the question, with a number if another standing question has this name."""
    printable = "".join(character if character.isprintable() else " " for character in question)
    numbers = ("", *(f" {number}" for number in range(2, len(names) + 3)))
    candidates = (printable[: MAX_NAME_CHARACTERS - len(number)].strip() + number for number in numbers)
    return next(name for name in candidates if name not in names)


def _counts(watches: Sequence[WatchedQuestion]) -> str:
    if not watches:
        return ""
    return f"{sum(one.level is Level.YES for one in watches)} of {len(watches)} yes"


class _Row:
    """A standing question with its state and a button to remove it."""

    def __init__(self, name: str, on_remove: Callable[[str], object]) -> None:
        self.element = block("li", "watch")
        with self.element:
            self._level = text("span", "", "level")
            with block("div", "watch-text"):
                self._question = text("p", "", "watch-question")
                self._facts = text("p", "", "quiet small")
                self._reason = text("p", "", "warning")
            remove = button("✕", lambda: on_remove(name), "plain")
            remove.props["aria-label"] = f"Remove {name}"
            remove.props["title"] = "Remove"

    def update(self, one: WatchedQuestion, cameras: Sequence[str]) -> None:
        name = f"watch watch-{one.level.name.lower()}"
        if name.split()[1] not in self.element.classes:
            self.element.classes(replace=name)
        set_text(self._level, LEVELS[one.level])
        set_text(self._question, one.watch.question)
        set_text(self._facts, facts(one, cameras))
        text_of_reasons = " ".join(map(sentence, reasons(one)))
        set_text(self._reason, text_of_reasons)
        set_visible(self._reason, visible=bool(text_of_reasons))


def reasons(one: WatchedQuestion) -> tuple[str, ...]:
    """Return why a level is unknown, inactive, not yes despite a high probability, or old."""
    is_held_back = one.level is Level.NO and one.p_yes is not None and one.p_yes >= one.watch.threshold
    held_back = "not yes for long enough yet" if is_held_back else ""
    return tuple(reason for reason in (one.reason, held_back, one.warning) if reason)


def facts(one: WatchedQuestion, cameras: Sequence[str]) -> str:
    """Return probability, start and cost of a level, and the settings, on one line.

    Args:
        one: The standing question.
        cameras: Names of all cameras; the camera is named only if there are several.
    """
    watch = one.watch
    is_known = one.level in (Level.YES, Level.NO) and one.p_yes is not None
    window = f"last {watch.last_sec:g} s" if watch.last_sec else "all frames"
    parts = [
        f"probability {one.p_yes:.2f}" if is_known else "",
        f"since {clock(one.since_ns)}" if one.since_ns else "",
        watch.camera if len(cameras) > 1 else "",
        f"{window}, every {watch.period_sec:g} s",
        f"{one.device_sec_per_hour:.0f} s of device time an hour",
    ]
    return " · ".join(part for part in parts if part)


class _AlertStrip:
    """The last alerts with an image of their evidence, the newest first."""

    def __init__(self, on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None]) -> None:
        self._on_open = on_open
        self._cards: dict[str, ui.element] = {}
        self._element = block("div", "alerts")
        with self._element:
            text("h3", "Alerts")
            self._track = block("div", "alert-track").props('data-grid role=group aria-label="Alerts"')
        self._announced = text("p", "", "only-read-aloud").props("role=status")

    def update(self, alerts: Sequence[WatchAlert]) -> None:
        set_visible(self._element, visible=bool(alerts))
        wanted = {alert.key for alert in alerts}
        for key in [key for key in self._cards if key not in wanted]:
            self._cards.pop(key).delete()
        for alert in alerts:
            if alert.key not in self._cards:
                with self._track:
                    card = self._card(alert)
                card.move(self._track, target_index=0)
                self._cards[alert.key] = card
        if alerts:
            set_text(self._announced, alert_description(alerts[-1]))

    def _card(self, alert: WatchAlert) -> ui.element:
        answer = LEVELS[Level.YES if alert.is_rising else Level.NO]
        card = block("button", f"alert alert-{answer.lower()}").props("type=button tabindex=-1")
        card.props["aria-label"] = card.props["title"] = alert_description(alert)
        if alert.evidence:
            card.on("click", lambda: self._on_open(alert.evidence[0], alert.evidence), args=[])
        with card:
            with block("span", "frame-image"):
                if alert.evidence:
                    thumbnail(alert.evidence[0])
            with block("span", "frame-line"):
                text("span", answer, "alert-answer")
                text("span", clock(alert.stamp_ns), "frame-time")
            text("span", alert.question, "frame-reason")
        return card
