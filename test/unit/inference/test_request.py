"""Questions and their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.errors import BadRequestError, NoFramesError
from delayed_vlm_ros.inference.request import AskRequest, check_request, select_frames
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair


def kept_pairs(stamps, *, provisional=False):
    """Return pairs with the given stamps, two each."""
    frames = [Frame(np.zeros((2, 2, 3), np.uint8), stamp, number + 1, 0.0, "") for number, stamp in enumerate(stamps)]
    pairs = [
        FramePair(index, frames[2 * index], frames[2 * index + 1] if 2 * index + 1 < len(frames) else None)
        for index in range((len(frames) + 1) // 2)
    ]
    assert provisional == (not pairs[-1].is_complete)
    return tuple(KeptPair(pair, in_star=False, in_stream=True) for pair in pairs)


def stamps_of(snapshot):
    return [stamp for kept in snapshot for stamp in kept.stamps]


@pytest.mark.parametrize("question", ["", " ", "\n\t ", "\u3000"])
def test_empty_question_is_refused(question):
    with pytest.raises(BadRequestError, match="question is empty"):
        check_request(AskRequest(question))


@pytest.mark.parametrize("question", [None, 5, b"Who?", ["Who?"]])
def test_question_of_another_type_is_refused(question):
    with pytest.raises(BadRequestError, match=f"'question' .*{type(question).__name__}"):
        check_request(AskRequest(question))


@pytest.mark.parametrize("name", ["since", "until", "last_sec"])
@pytest.mark.parametrize("value", [-1.0, -1e-9, math.nan, math.inf, -math.inf])
def test_invalid_time_limit_is_refused(name, value):
    with pytest.raises(BadRequestError, match=f"'{name}' .*{value}"):
        check_request(AskRequest("Who?", **{name: value}))


@pytest.mark.parametrize("tokens", [0, -1, 2.5, "5"])
def test_invalid_answer_length_is_refused(tokens):
    with pytest.raises(BadRequestError, match=f"'max_new_tokens' .*{tokens}"):
        check_request(AskRequest("Who?", max_new_tokens=tokens))


def test_since_after_until_is_refused_with_both_values():
    with pytest.raises(BadRequestError, match=r"'since' \(5\.250 s\).*'until' \(5\.000 s\)"):
        check_request(AskRequest("Who?", since=5.25, until=5.0))


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"since": 0.0},
        {"since": 5.0, "until": 5.0},
        {"last_sec": 0.5, "until": 1e10},
        {"max_new_tokens": 1},
    ],
)
def test_valid_request_passes(limits):
    check_request(AskRequest("Who?", **limits))


@pytest.mark.parametrize(
    ("limits", "in_time", "limited"),
    [
        ({}, False, False),
        ({"max_new_tokens": 5}, False, False),
        ({"since": 0.0}, True, True),
        ({"until": 1.0}, True, True),
        ({"last_sec": 1}, True, True),
        ({"newest_pairs": 1}, False, True),
    ],
)
def test_request_knows_whether_it_is_limited(limits, in_time, limited):
    request = AskRequest("Who?", **limits)
    assert (request.has_time_limit, request.is_limited) == (in_time, limited)


def test_selection_from_an_empty_memory_is_refused():
    with pytest.raises(NoFramesError, match=r"^no frames: "):
        select_frames((), AskRequest("Who?"))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"since": 1.0, "until": 6.0}, [1, 2, 3, 4, 5, 6]),
        ({"since": 3.0}, [3, 4, 5, 6]),
        ({"newest_pairs": 2}, [3, 4, 5, 6]),
        ({"newest_pairs": 1, "until": 4.0}, [3, 4]),
        ({"newest_pairs": 9}, [1, 2, 3, 4, 5, 6]),
        ({"since": 3.1}, [5, 6]),  # both frames of a pair must lie within the limits
        ({"until": 4.0}, [1, 2, 3, 4]),
        ({"until": 3.9}, [1, 2]),
        ({"last_sec": 3.0}, [3, 4, 5, 6]),
        ({"last_sec": 2.9}, [5, 6]),
        ({"last_sec": 3.0, "since": 4.5}, [5, 6]),
        ({"last_sec": 1.0, "since": 2.0}, [5, 6]),
        ({"last_sec": 3.0, "until": 4.0}, [3, 4]),
    ],
)
def test_selection_has_the_pairs_within_the_limits(limits, expected):
    # given
    snapshot = kept_pairs([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    # then
    assert stamps_of(select_frames(snapshot, AskRequest("Who?", **limits))) == expected


def test_provisional_pair_is_selected_by_its_only_frame():
    # given
    snapshot = kept_pairs([1.0, 2.0, 3.0], provisional=True)

    # then
    assert stamps_of(select_frames(snapshot, AskRequest("Who?", since=3.0, until=3.0))) == [3.0, 3.0]


@pytest.mark.parametrize("limits", [{"since": 7.0}, {"until": 0.5}, {"since": 2.0, "until": 3.0}, {"last_sec": 0.1}])
def test_empty_selection_is_refused_with_the_kept_range(limits):
    with pytest.raises(NoFramesError, match=r"1\.000 s to 6\.000 s"):
        select_frames(kept_pairs([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), AskRequest("Who?", **limits))


@given(
    count=st.integers(1, 12),
    since=st.none() | st.floats(0, 15),
    until=st.none() | st.floats(0, 15),
    last_sec=st.none() | st.floats(0, 15),
)
def test_selection_has_exactly_the_pairs_within_the_limits(count, since, until, last_sec):
    # given
    snapshot = kept_pairs([float(number) for number in range(2 * count)])
    request = AskRequest("Who?", since=since, until=until, last_sec=last_sec)

    # when
    try:
        selected = select_frames(snapshot, request)
    except NoFramesError:
        selected = ()

    # then
    def fits(stamp):
        return (
            (since is None or stamp >= since)
            and (until is None or stamp <= until)
            and (last_sec is None or stamp >= 2 * count - 1 - last_sec)
        )

    assert selected == tuple(kept for kept in snapshot if all(fits(stamp) for stamp in kept.stamps))
