"""Scores of an answer against reference answers."""

import pytest

pytest.importorskip("sacrebleu", reason="the extra 'evaluation' is not installed")

from delayed_vlm_ros.replay.scores import score, wilson_interval


@pytest.mark.parametrize(
    ("answer", "references", "exact_match", "contains", "token_f1"),
    [
        ("A red box.", ["the Red box"], True, True, 1.0),
        ("I see a red box there", ["red box"], False, True, 4 / 7),
        ("red", ["red box"], False, False, 2 / 3),
        ("a boxing match", ["box"], False, False, 0.0),
        ("no", ["yes", "no"], True, True, 1.0),
        ("", ["yes"], False, False, 0.0),
        ("the", ["a"], False, False, 0.0),
        ("", ["A"], False, False, 0.0),
        ("a", ["A"], True, True, 1.0),
        ("7 a.m.", ["7 am"], True, True, 1.0),
        ("in the U.S.A.", ["in U.S."], False, False, 0.5),
        ("box box", ["box"], False, True, 2 / 3),
    ],
)
def test_word_scores_ignore_case_articles_and_punctuation(answer, references, exact_match, contains, token_f1):
    found = score(answer, references)
    assert (found.exact_match, found.contains) == (exact_match, contains)
    assert found.token_f1 == pytest.approx(token_f1)


def test_chrf_compares_characters_and_length_ratio_uses_the_closest_reference():
    assert score("yes", ["yes"]).chrf == pytest.approx(1.0)
    assert 0.3 < score("a red box", ["a red ball", "nothing"]).chrf < 0.6
    assert score("zzz", ["a red ball"]).chrf < 0.01
    assert score("four", ["a long answer", "eight ch"]).length_ratio == 0.5
    assert score("", ["yes"]).length_ratio == 0.0


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(0, 10, (0.0, 0.278)), (5, 10, (0.237, 0.763)), (10, 10, (0.722, 1.0)), (75, 100, (0.657, 0.825))],
)
def test_wilson_interval_has_the_published_values(successes, trials, expected):
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=6e-4)
