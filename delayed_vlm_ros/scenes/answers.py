"""Correct answers to questions about a history of views. Each function returns None where no answer is fair."""

from __future__ import annotations

from itertools import pairwise

from delayed_vlm_ros.scenes.sprites import PERSON
from delayed_vlm_ros.scenes.truth import History, names_seen, sightings

NOT_SEEN_NOW = "I don't see one"
NOT_SEEN_EVER = "I have not seen one"
NOTHING = "nothing"
EMPTY_ROOM = "the room is empty"
NOTHING_HAPPENED = "nothing happened"
NUMBERS = ("zero", "one", "two", "three", "four")
REGIONS = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
AGES_SEC = (2, 5, 10, 20, 45)  # the ages that an answer can state
OLDER = "more than a minute ago"

_LEFT_UNTIL, _RIGHT_FROM, _UNCERTAIN = 0.40, 0.60, 0.04
_MIN_ORDER_DISTANCE = 0.10  # in image widths; closer objects have no left-to-right order
_MOVED_FROM, _RESTED_BELOW = 0.17, 0.12
_AGE_TOLERANCE = 0.2
_OLDER_FROM_SEC = 80.0
_MAX_LISTED = 2
_MAX_EVENTS = 4


def with_article(name: str) -> str:
    """Return the name with its article, such as ``an orange box``."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def listed(parts: list[str]) -> str:
    """Return the parts as an enumeration, such as ``x, y and z``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def matching(names: dict[str, float], wanted: str) -> dict[str, float]:
    """Return the objects whose name contains all wanted words: a colour, a shape, both, or ``person``."""
    words = set(wanted.split())
    return {name: x for name, x in names.items() if words <= set(name.split())}


def region(x: float) -> str | None:
    """Return ``left``, ``middle`` or ``right``; None near a border."""
    if any(abs(x - border) < _UNCERTAIN for border in (_LEFT_UNTIL, _RIGHT_FROM)):
        return None
    return "left" if x < _LEFT_UNTIL else "right" if x > _RIGHT_FROM else "middle"


def yes_or_no(value: bool) -> str:  # noqa: FBT001  the value is the subject
    """Return ``yes`` or ``no``."""
    return "yes" if value else "no"


def colour_of(history: History, shape: str) -> str | None:
    """Return the current colour of the only object of a shape."""
    found = list(matching(history[-1].objects, shape))
    if len(found) > 1:
        return None
    return found[0].split()[0] if found else NOT_SEEN_NOW


def is_there(history: History, wanted: str) -> str:
    """Return whether a matching object is in the current view."""
    return yes_or_no(bool(matching(dict(history[-1].positions), wanted)))


def how_many(history: History, wanted: str, view: int = -1) -> str | None:
    """Return the number of objects of a shape in a view, by default the current one; an empty shape counts all."""
    count = len(matching(history[view].objects, wanted))
    return NUMBERS[count] if count < len(NUMBERS) else None


def what_is_at(history: History, side: str, view: int = -1) -> str | None:
    """Return the only object in a region of a view, by default the current one."""
    regions = {name: region(x) for name, x in history[view].objects.items()}
    found = [name for name, where in regions.items() if where == side]
    if None in regions.values() or len(found) > 1:
        return None
    return with_article(found[0]) if found else NOTHING


def where_is(history: History, wanted: str) -> str | None:
    """Return the current region of the only matching object."""
    found = list(matching(dict(history[-1].positions), wanted).values())
    if len(found) > 1:
        return None
    if not found:
        return NOT_SEEN_NOW
    where = region(found[0])
    return REGIONS[where] if where else None


def was_there(history: History, wanted: str) -> str:
    """Return whether a matching object was in any view."""
    return yes_or_no(any(matching(dict(view.positions), wanted) for view in history))


def at_start(history: History) -> str | None:
    """Return the objects of the first view, from left to right, if they are few."""
    positions = history[0].objects
    if len(positions) > _MAX_LISTED or any(b - a < _MIN_ORDER_DISTANCE for a, b in pairwise(positions.values())):
        return None
    return listed([with_article(name) for name in positions]) if positions else NOTHING


def _arrivals(history: History) -> dict[str, int]:
    """Return the number of the view in which each object appears that was absent at the start."""
    first = {name: min(sightings(history, name)) for name in names_seen(history)}
    return {name: number for name, number in first.items() if number > 0}


def _departures(history: History) -> dict[str, int]:
    """Return the number of the last view of each object that has left."""
    last = {name: max(sightings(history, name)) for name in names_seen(history)}
    return {name: number for name, number in last.items() if number < len(history) - 1}


def _came_back(history: History) -> bool:
    numbers = (list(sightings(history, name)) for name in names_seen(history))
    return any(one[-1] - one[0] + 1 > len(one) for one in numbers)


def _extreme(events: dict[str, int], number: int) -> str | None:
    found = [name for name, when in events.items() if when == number]
    return with_article(found[0]) if len(found) == 1 else None


def appeared_first(history: History) -> str | None:
    """Return the object that appeared first after the start."""
    arrivals = _arrivals(history)
    return _extreme(arrivals, min(arrivals.values())) if arrivals else NOTHING


def appeared_last(history: History) -> str | None:
    """Return the object that appeared last."""
    arrivals = _arrivals(history)
    if _came_back(history):
        return None
    return _extreme(arrivals, max(arrivals.values())) if arrivals else NOTHING


def left_last(history: History) -> str | None:
    """Return the object that left last."""
    departures = _departures(history)
    if _came_back(history):
        return None
    return _extreme(departures, max(departures.values())) if departures else NOTHING


def is_move(reach: float) -> bool | None:
    """Return whether an object moved that was seen across this distance (image widths); None if unclear."""
    if _RESTED_BELOW <= reach <= _MOVED_FROM:
        return None
    return reach > _MOVED_FROM


def _moved(history: History, name: str) -> bool | None:
    positions = [history[number].positions[name] for number in sightings(history, name)]
    if not positions:
        return None
    return is_move(max(positions) - min(positions))


def did_move(history: History, name: str) -> str | None:
    """Return whether an object was seen at clearly different positions."""
    moved = _moved(history, name)
    return None if moved is None else yes_or_no(moved)


def which_moved(history: History) -> str | None:
    """Return the only object that was seen at clearly different positions."""
    moved = {name: _moved(history, name) for name in names_seen(history)}
    movers = [name for name, has in moved.items() if has]
    if None in moved.values() or len(movers) > 1:
        return None
    return with_article(movers[0]) if movers else NOTHING


def how_long_ago(history: History, name: str) -> str | None:
    """Return how long ago an object was last seen."""
    numbers = list(sightings(history, name))
    if not numbers:
        return NOT_SEEN_EVER
    age = history[-1].stamp - history[numbers[-1]].stamp
    if numbers[-1] == len(history) - 1:
        return "now"
    if age > _OLDER_FROM_SEC:
        return OLDER
    near = [named for named in AGES_SEC if abs(age / named - 1.0) <= _AGE_TOLERANCE]
    return f"about {near[0]} seconds ago" if near else None


def came_before(history: History, one: str, other: str) -> str | None:
    """Return whether one object was first seen before the other."""
    first = [next(sightings(history, name), None) for name in (one, other)]
    if first[0] is None or first[1] is None or first[0] == first[1]:
        return None
    return yes_or_no(first[0] < first[1])


def description(history: History) -> str | None:
    """Return a sentence on everything in the current view, from left to right."""
    positions = sorted(history[-1].positions.items(), key=lambda item: item[1])
    if any(b - a < _MIN_ORDER_DISTANCE for (_, a), (_, b) in pairwise(positions)):
        return None
    parts = [(with_article(name), region(x)) for name, x in positions]
    if any(where is None for _, where in parts):
        return None
    return listed([f"{what} {REGIONS[where or '']}" for what, where in parts]) if parts else EMPTY_ROOM


def happenings(history: History) -> str | None:
    """Return a sentence on the newest arrivals, departures and passing people, in time order."""
    if _came_back(history):
        return None
    events = [(number, f"{with_article(name)} came") for name, number in _arrivals(history).items()]
    events += [(number + 1, f"{with_article(name)} left") for name, number in _departures(history).items()]
    persons = list(sightings(history, PERSON))
    if persons:
        events.append((persons[0], "a person came by"))
    events.sort()
    if any(a == b for (a, _), (b, _) in pairwise(events)):
        return None
    return listed([what for _, what in events[-_MAX_EVENTS:]]) if events else NOTHING_HAPPENED
