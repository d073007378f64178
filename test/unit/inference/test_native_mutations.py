"""The comparison with native inference detects faults: each of these mutations fails it by a wide margin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delayed_vlm_ros.inference.local import engine as engine_module
from delayed_vlm_ros.inference.local import video_input
from delayed_vlm_ros.inference.local.cache import encoding, prefill, prefix, vision
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.local.positions import PairText, prompt_positions, separate_pair_positions, temporal_ids

TOLERANCE = 1e-5  # float32
TOLERANCE_IN_DOUBLE = 1e-9
CLEAR_FACTOR = 1000

TIME_IS_POSITION = ("qwen2_vl", "qwen2_5_vl")
TIME_IS_TEXT = ("qwen3_vl", "qwen3_5")
RECURRENT = ("qwen3_5",)  # the state adds up rounding: only float64 separates it clearly from a fault


def patch_keys(patch, change):
    """Replace the keys of the pairs' segments by ``change(number, kept pair, (temporal id, text))``."""
    original = prefix.segments_of

    def other(prompt, layout, snapshot):
        text, *pairs = original(prompt, layout, snapshot)
        times = zip(layout.temporal_ids, layout.pair_texts, strict=True)
        rows = zip(pairs, snapshot, times, strict=True)
        return (text, *(replace(pair, key=change(n, kept, time)) for n, (pair, kept, time) in enumerate(rows)))

    patch.setattr(encoding, "segments_of", other)


def patch_pixels(patch, change):
    """Encode other images than those of the snapshot."""
    original = encoding.encode_snapshot

    def other(model, processor, adapter, cache, snapshot, *rest, **options):
        return original(model, processor, adapter, cache, tuple(change(list(snapshot))), *rest, **options)

    patch.setattr(encoding, "encode_snapshot", other)


def key_without_content(patch):
    patch_keys(patch, lambda number, kept, time: (time,))


def key_without_content_of_one_pair(patch):
    patch_keys(patch, lambda number, kept, time: (time, kept.content_key if number != 2 else b""))


def key_ignoring_completion(patch):
    """A provisional pair and the completed one share a key."""
    patch_keys(patch, lambda number, kept, time: (time, kept.id))


def key_without_time(patch):
    patch_keys(patch, lambda number, kept, time: (kept.content_key,))


def features_ignoring_completion(patch):
    """A provisional pair and the completed one share their vision features."""
    patch_features(patch, lambda kept: kept.id)


def features_of_another_pair(patch):
    """Every second pair uses the features of the pair before."""
    patch_features(patch, lambda kept: kept.id // 2)


def patch_features(patch, key):
    original = encoding.encode_snapshot

    def other(model, processor, adapter, cache, snapshot, *rest, **options):
        keyed = tuple(Keyed(kept, key(kept)) for kept in snapshot)
        return original(model, processor, adapter, cache, keyed, *rest, **options)

    patch.setattr(encoding, "encode_snapshot", other)
    patch.setattr(vision.VisionFeatureCache, "keep_only", lambda *_: None)


class Keyed:
    """A kept pair with another key."""

    def __init__(self, kept, key):
        self.content_key = key
        self.frames = kept.frames


def one_stale_pair(patch):
    patch_pixels(patch, lambda pairs: [pairs[0], pairs[0], *pairs[2:]])


def two_pairs_swapped(patch):
    patch_pixels(patch, lambda pairs: [pairs[0], pairs[2], pairs[1], *pairs[3:]])


def frames_of_a_pair_swapped(patch):
    def swapped(pair):
        return replace(pair, first=pair.second, second=pair.first)

    patch_pixels(patch, lambda pairs: [pairs[0], replace(pairs[1], pair=swapped(pairs[1].pair)), *pairs[2:]])


def one_temporal_id_off(patch):
    def off(*arguments):
        times = temporal_ids(*arguments)
        return replace(times, ids=(*times.ids[:1], times.ids[1] + 1, *times.ids[2:]))

    patch.setattr(video_input, "temporal_ids", off)


def last_temporal_id_off(patch):
    def off(*arguments):
        times = temporal_ids(*arguments)
        return replace(times, ids=(*times.ids[:-1], times.ids[-1] + 1))

    patch.setattr(video_input, "temporal_ids", off)


def bare_floor(patch):
    patch.setattr("delayed_vlm_ros.inference.local.positions._ROUNDING_MARGIN", 0.0)


def long_gaps_not_compressed(patch):
    patch.setattr("delayed_vlm_ros.inference.local.positions._TRUE_GAP_SHARE", 1.0)


def time_scaled_to_the_limit(patch):
    """All ids are scaled by the age of the oldest pair."""

    def scaled(config, stamps, limit):
        span = stamps[-1] - stamps[0]
        return replace(
            temporal_ids(config, stamps, limit), ids=tuple(int(limit * (s - stamps[0]) / span) for s in stamps)
        )

    patch.setattr(video_input, "temporal_ids", scaled)


def patch_positions(patch, change):
    """Change the position ids of prompts; ``change(positions, tokens of the question)`` returns the new ones."""
    for name, original in (
        ("prompt_positions", prompt_positions),
        ("separate_pair_positions", separate_pair_positions),
    ):

        def other(*arguments, original=original):
            return change(original(*arguments), arguments[-1])

        patch.setattr(video_input, name, other)


def question_off(patch):
    def off(positions, after):
        positions[..., -after:] += 1
        return positions

    patch_positions(patch, off)


def question_after_rows_and_columns_only(patch):
    """The question follows the largest row or column, as in the library."""

    def stock(before, ids, rows, columns, after):
        positions = prompt_positions(before, ids, rows, columns, after)
        positions[..., -after:] += before + max(rows, columns) - positions[0, 0, -after]
        return positions

    patch.setattr(video_input, "prompt_positions", stock)


def rows_and_columns_exchanged(patch):
    patch_positions(patch, lambda positions, after: positions[[0, 2, 1]])


def text_between_pairs_not_counted(patch):
    """Each pair follows the one before directly; the text between them has no positions of its own."""

    def uncounted(before, texts, rows, columns, after):
        positions = separate_pair_positions(before, texts, rows, columns, after)
        pair = len(texts[0].before) + rows * columns + len(texts[0].after)
        positions[..., before + pair :] -= len(texts[0].before)
        return positions

    patch.setattr(video_input, "separate_pair_positions", uncounted)


def patch_texts(patch, change):
    original = video_input._pair_texts

    def other(*arguments):
        return tuple(change(list(original(*arguments))))

    patch.setattr(video_input, "_pair_texts", other)


def time_text_of_another_pair(patch):
    patch_texts(patch, lambda texts: [texts[0], texts[2], *texts[2:]])


def end_of_pair_missing(patch):
    patch_texts(patch, lambda texts: [PairText(texts[0].before), *texts[1:]])


def patch_features_of_pairs(patch, change):
    """Change the features that the language model reads; ``change(output)`` works in place."""
    original = prefill.adapter_for

    def other(config):
        adapter = original(config)

        def video_output(*arguments):
            output = adapter.video_output(*arguments)
            change(output)
            return output

        return replace(adapter, video_output=video_output)

    patch.setattr(prefill, "adapter_for", other)


def deepstack_of_another_pair(patch):
    def roll(output):
        output.deepstack_features = [(*level[1:], level[0]) for level in output.deepstack_features]

    patch_features_of_pairs(patch, roll)


def deepstack_levels_swapped(patch):
    def swap(output):
        output.deepstack_features = output.deepstack_features[::-1]

    patch_features_of_pairs(patch, swap)


def state_not_rolled_back(patch):
    """Keys and values are cut, but the recurrent state has read the dropped pairs."""
    original = prefix.PrefixCache.truncate

    def other(self, count, **options):
        newest = self._states[max(self._states)]
        original(self, count, **options)
        self._states[count] = newest

    patch.setattr(prefix.PrefixCache, "truncate", other)
    patch.setattr(prefix.PrefixCache, "restorable", lambda self, count: count)


def state_of_a_shorter_prefix(patch):
    original = prefix.PrefixCache.fork

    def other(self):
        number = len(self.segments)
        states = self._states[number]
        self._states[number] = self._states[max((one for one in self._states if one < number), default=number)]
        try:
            return original(self)
        finally:
            self._states[number] = states

    patch.setattr(prefix.PrefixCache, "fork", other)


def state_shared_with_the_question(patch):
    """The question changes the saved state in place."""
    patch.setattr(prefix.RecurrentLayer, "fork", lambda self: self)


def positions_left_to_the_library(patch):
    original = engine_module.generate_answer

    def without(model, token_ids, positions, cache, **options):
        generate = model.generate
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(model, "generate", lambda position_ids, **rest: generate(**rest))
            return original(model, token_ids, positions, cache, **options)

    patch.setattr(engine_module, "generate_answer", without)


def penalty_ignored(patch):
    original = engine_module.generate_answer

    def without(model, *arguments, **options):
        patch.setattr(model.generation_config, "repetition_penalty", 1.0)
        return original(model, *arguments, **options)

    patch.setattr(engine_module, "generate_answer", without)


# Frames before and between two questions.
SAME = {"first": 8}
MANY = {"first": 18}
COMPLETED = {"first": 7, "further": 1}
DAYS_APART = {"first": 6, "further": 2, "pause": 300_000.0}
SLID = {"sizes": (0, 6), "first": 6, "further": 2}
STILL_AFTER_A_PAUSE = {"sizes": (0, 6), "first": 6, "further": 2, "pause": 5.0, "still": True}
LAST_PAIR_OTHER = {"sizes": (0, 6), "first": 6, "replaced": 2}

ALL = SUPPORTED_MODEL_TYPES
MUTATIONS = [
    (key_without_content, SLID, TIME_IS_POSITION),
    (key_without_content, LAST_PAIR_OTHER, TIME_IS_TEXT),  # after sliding, the texts differ by the uneven steps
    (key_without_content_of_one_pair, LAST_PAIR_OTHER, ALL),
    (key_ignoring_completion, COMPLETED, TIME_IS_POSITION),  # the text of a pair changes with its completion
    (key_without_time, STILL_AFTER_A_PAUSE, ("qwen2_5_vl", *TIME_IS_TEXT)),  # Qwen2-VL does not encode time
    (features_ignoring_completion, COMPLETED, ALL),
    (features_of_another_pair, SAME, ALL),
    (one_stale_pair, SAME, ALL),
    (two_pairs_swapped, SAME, ALL),
    (frames_of_a_pair_swapped, SAME, ALL),
    (one_temporal_id_off, SAME, TIME_IS_POSITION),
    (last_temporal_id_off, SAME, TIME_IS_POSITION),
    (bare_floor, SAME, ("qwen2_5_vl",)),
    (long_gaps_not_compressed, DAYS_APART, ("qwen2_5_vl",)),
    (time_scaled_to_the_limit, DAYS_APART, ("qwen2_5_vl",)),
    (question_off, SAME, ALL),
    (question_after_rows_and_columns_only, MANY, TIME_IS_POSITION),
    (rows_and_columns_exchanged, SAME, ALL),
    (positions_left_to_the_library, SAME, ALL),
    (time_text_of_another_pair, SAME, TIME_IS_TEXT),
    (end_of_pair_missing, SAME, TIME_IS_TEXT),
    (text_between_pairs_not_counted, SAME, TIME_IS_TEXT),
    (deepstack_of_another_pair, SAME, ("qwen3_vl",)),
    (deepstack_levels_swapped, SAME, ("qwen3_vl",)),
    (state_not_rolled_back, LAST_PAIR_OTHER, ("qwen3_5",)),
    (state_of_a_shorter_prefix, SAME, ("qwen3_5",)),
    (state_shared_with_the_question, SAME, ("qwen3_5",)),
]
# Uneven steps, slightly early or late, so that all methods of counting time differ from each other.
STAMPS = [0.0, 0.5, 0.97, 1.5, 2.0, 2.5, 2.99, 3.5, *(4.0 + 0.7 * number for number in range(12))]


def second_question(
    make_engine,
    load_tiny,
    image,
    compare,
    family,
    *,
    first,
    further=0,
    sizes=(20, 20),
    pause=0.0,
    still=False,
    replaced=0,
):
    star, stream = sizes
    dtype = torch.float64 if family in RECURRENT else torch.float32
    engine = make_engine(load_tiny(family, dtype=dtype), star_memory_size=star, stream_window_size=stream)

    def add(numbers, *, other=0, later=0.0):
        for number in numbers:
            engine.add_frame(image(0 if still else number + other), STAMPS[number] + later)

    add(range(first))
    engine.ask("Who?", max_new_tokens=8)
    add(range(first, first + further), later=pause)
    if replaced:
        kept = engine._cache._prefix
        engine.reset()
        add(range(first - replaced))
        add(range(first - replaced, first), other=50)
        engine._cache._prefix = kept
    return compare(engine, "What is on the table?").comparison


CASES = [
    pytest.param(family, mutation, scenario, id=f"{mutation.__name__}-{family}")
    for mutation, scenario, families in MUTATIONS
    for family in families
]


@pytest.mark.parametrize(("family", "mutation", "scenario"), CASES)
def test_mutation_fails_the_comparison(make_engine, load_tiny, image, compare, family, mutation, scenario):
    # given the same history with and without the fault
    fixtures = (make_engine, load_tiny, image, compare, family)
    tolerance = TOLERANCE_IN_DOUBLE if family in RECURRENT else TOLERANCE

    # when
    correct = second_question(*fixtures, **scenario)
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch)
        faulty = second_question(*fixtures, **scenario)

    # then
    assert correct.verdict(tolerance) == "equal"
    assert faulty.verdict(tolerance) == "different"
    assert faulty.logits_error > CLEAR_FACTOR * tolerance
    assert faulty.kv_error > CLEAR_FACTOR * tolerance
    print(f"{mutation.__name__:40} {family:12} {correct.error:.1e} {faulty.logits_error:.1e} {faulty.kv_error:.1e}")


def test_ignored_repetition_penalty_fails_the_comparison(make_engine, load_tiny, compare):
    # given
    questions = ["What is on the table?", "Who?", "Where?", "Is it dark?"]

    # when
    with pytest.MonkeyPatch.context() as patch:
        penalty_ignored(patch)
        engine = make_engine(load_tiny(), stamps=STAMPS[:8])
        comparisons = []
        for question in questions:
            patch.setattr(engine.model.generation_config, "repetition_penalty", 1.05)
            comparisons.append(compare(engine, question, tokens=24).comparison)

    # then the numbers are correct, but not the choice of tokens
    assert all(comparison.error <= TOLERANCE for comparison in comparisons)
    assert "different" in [comparison.verdict(TOLERANCE) for comparison in comparisons]
