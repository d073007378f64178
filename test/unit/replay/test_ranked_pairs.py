"""The pairs that an answer rests on, in the result of a replay and in its report."""

import json

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.replay.answerers import MethodAnswer, pair_key
from delayed_vlm_ros.replay.local_answerers import LocalAnswerers
from delayed_vlm_ros.replay.methods import DELAYED, DELAYED_UNCACHED, NATIVE_KEPT
from delayed_vlm_ros.replay.report.view import _answer, _pair
from delayed_vlm_ros.replay.result import answer_entries
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import STORY_SEC, story_scene


def test_delayed_answer_names_the_pairs_that_it_rests_on():
    # given
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    memory = MemoryConfig().build()
    methods = (DELAYED, DELAYED_UNCACHED, NATIVE_KEPT)
    answerers = LocalAnswerers(engine.model, engine.processor, memory, methods, 112 * 140)
    for number in range(int(2 * STORY_SEC)):
        memory.add(render(story_scene(), 0.5 * number, 112, 140), 0.5 * number)

    # when
    answers = answerers.answer(AskRequest("What was on the left at the start?", max_new_tokens=16))
    entries = json.loads(json.dumps(answer_entries(answers, ["a red box"])))

    # then
    kept = {pair_key(one): one.stamps for one in memory.snapshot()}
    best = entries[DELAYED]["rests_on"]
    assert len(best) == 5
    assert kept[best[0]["pair"]][1] <= 9.0  # the box is there
    assert [one["relevance"] for one in best] == sorted((one["relevance"] for one in best), reverse=True)
    assert entries[DELAYED_UNCACHED]["rests_on"] == entries[NATIVE_KEPT]["rests_on"] == []
    assert answers[DELAYED].answer == answers[NATIVE_KEPT].answer == "a red box"


def test_report_shows_ranked_pairs_of_the_result_and_takes_results_without_them():
    entry = {**answer_entries({DELAYED: MethodAnswer("a red box")}, [])[DELAYED]}
    pairs = {"3": _pair("3", {"at": [1.0], "importance": 0.5, "reason": "", "thumbnail": ""}, None, "r1")}
    ranked = [{"pair": "3", "relevance": 0.625}, {"pair": "99", "relevance": 0.1}]
    assert _answer(None, {**entry, "rests_on": ranked}, pairs).rests_on == [(pairs["3"], "62%")]
    del entry["rests_on"]
    assert _answer(None, entry, pairs).rests_on == []
