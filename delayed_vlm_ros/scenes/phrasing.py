"""Phrasings of the questions, and the vocabulary they are made of. The embedded model is trained on this text."""

from __future__ import annotations

import numpy as np

PHRASINGS: dict[str, tuple[str, ...]] = {
    "colour": (
        "what colour is the {thing}?",
        "what color is the {thing}?",
        "which colour does the {thing} have?",
        "tell me the colour of the {thing}",
        "what is the colour of the {thing}?",
    ),
    "is_there": (
        "is there a {thing}?",
        "is there a {thing} now?",
        "do you see a {thing}?",
        "can you see a {thing} in the room?",
        "is a {thing} visible?",
        "is the {thing} still there?",
    ),
    "is_there_person": ("is somebody there?", "is there anybody in the room?", "do you see anyone?"),
    "how_many": (
        "how many {things} are there?",
        "how many {things} do you see?",
        "how many {things} are in the room now?",
        "count the {things}",
    ),
    "how_many_at_start": (
        "how many {things} were there at the start?",
        "how many {things} did you see at the beginning?",
    ),
    "side_left": ("what is on the left?", "which object is on the left?", "what do you see on the left?"),
    "side_middle": ("what is in the middle?", "which object is in the middle?", "what do you see in the middle?"),
    "side_right": ("what is on the right?", "which object is on the right?", "what do you see on the right?"),
    "where": (
        "where is the {thing}?",
        "where do you see the {thing}?",
        "on which side is the {thing}?",
        "where is the {thing} now?",
    ),
    "was_there": (
        "was there a {thing} earlier?",
        "was there a {thing} before?",
        "have you seen a {thing}?",
        "did you see a {thing}?",
        "has there been a {thing}?",
        "was a {thing} there at any time?",
    ),
    "was_there_person": (
        "did anyone come by?",
        "did a person come by?",
        "has anybody been here?",
        "was somebody here?",
        "have you seen anyone?",
    ),
    "at_start": (
        "what was there at the start?",
        "what was in the room at the beginning?",
        "what did you see first?",
        "which objects were there at the start?",
    ),
    "at_start_left": ("what was on the left at the start?", "what was on the left at the beginning?"),
    "at_start_middle": ("what was in the middle at the start?", "what was in the middle at the beginning?"),
    "at_start_right": ("what was on the right at the start?", "what was on the right at the beginning?"),
    "appeared_first": (
        "what appeared first?",
        "which object appeared first?",
        "what came first?",
        "what was the first thing to appear?",
    ),
    "appeared_last": (
        "what appeared last?",
        "which object appeared last?",
        "what came last?",
        "what was the last thing to appear?",
        "what is the newest object?",
    ),
    "left_last": (
        "what left last?",
        "which object left last?",
        "what disappeared last?",
        "what was the last thing to leave?",
        "what went away last?",
    ),
    "which_moved": ("which one moved?", "what moved?", "which object moved?", "what has moved?"),
    "did_move": ("did the {thing} move?", "has the {thing} moved?", "was the {thing} moved?"),
    "how_long_ago": (
        "how long ago did you see the {thing}?",
        "how long ago did you last see a {thing}?",
        "how long ago was the {thing} here?",
        "when did you last see the {thing}?",
        "when was the {thing} last seen?",
    ),
    "before": (
        "did the {thing} come before the {other}?",
        "was the {thing} here before the {other}?",
        "did you see the {thing} before the {other}?",
        "did the {thing} appear before the {other}?",
    ),
    "describe": ("describe the scene", "what do you see?", "describe the room", "what is there now?"),
    "happened": ("what happened?", "what has happened?", "tell me what happened", "what is going on?"),
}

SYNONYMS = {
    "box": ("cube",),
    "ball": ("sphere",),
    "cylinder": ("can",),
    "ring": ("tyre",),
    "purple": ("violet",),
}
PLURALS = {
    "box": "boxes",
    "ball": "balls",
    "cylinder": "cylinders",
    "cone": "cones",
    "ring": "rings",
    "": "objects",
}
_SYNONYM_SHARE = 0.15

UNKNOWN_WORDS = [
    "table",
    "dog",
    "cat",
    "weather",
    "screwdriver",
    "battery",
    "kitchen",
    "robot",
    "yesterday",
    "door",
    "window",
    "open",
    "closed",
    "politics",
    "music",
    "charging",
    "milk",
    "chair",
    "cup",
    "bottle",
    "keys",
    "phone",
    "drill",
    "manual",
    "pallet",
    "forklift",
    "engine",
    "planet",
    "recipe",
    "dangerous",
    "heavy",
    "expensive",
    "buy",
    "sing",
    "fly",
    "calculate",
    "translate",
    "joke",
    "capital",
    "france",
    "price",
    "temperature",
    "humidity",
    "password",
    "network",
]

_STRANGE = (
    "is the {unknown} {unknown}?",
    "where did I put the {unknown}?",
    "where is the {unknown}?",
    "what is on the {unknown}?",
    "is there a {unknown}?",
    "what colour is the {unknown}?",
    "how many {unknown} are there?",
    "did the {unknown} move?",
    "was there a {unknown} earlier?",
    "{unknown} the {unknown}",
    "can you {unknown}?",
    "tell me a {unknown}",
    "how {unknown} is the red box?",
    "what is the {unknown} of {unknown}?",
    "did the {unknown} come before the ball?",
    "is the green ball {unknown}?",
    "{unknown} {unknown} {unknown}",
    "{unknown}",
    "please {unknown} the blue {unknown} now",
    "what did the {unknown} say?",
)


def question_text(phrasing: str, random: np.random.Generator, **names: str) -> str:
    """Return a question in a random phrasing.

    Args:
        phrasing: Key of ``PHRASINGS``.
        random: Random generator.
        **names: Values of the placeholders, such as ``thing="red box"``.
    """
    choices = PHRASINGS[phrasing]
    worded = {placeholder: _reworded(words, random) for placeholder, words in names.items()}
    text = choices[random.integers(len(choices))].format(**worded)
    return text.replace(" a orange", " an orange").replace(" a object", " an object")


def strange_question(random: np.random.Generator) -> str:
    """Return a question with words outside the vocabulary."""
    text = _STRANGE[random.integers(len(_STRANGE))]
    while "{unknown}" in text:
        text = text.replace("{unknown}", UNKNOWN_WORDS[random.integers(len(UNKNOWN_WORDS))], 1)
    return text


def _reworded(words: str, random: np.random.Generator) -> str:
    return " ".join(
        SYNONYMS[word][random.integers(len(SYNONYMS[word]))]
        if word in SYNONYMS and random.random() < _SYNONYM_SHARE
        else word
        for word in words.split()
    )
