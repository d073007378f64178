"""The benchmarks of model servers, with a small server that counts tokens as vLLM does."""

import pytest
from chat_server import MODEL, ChatServer

from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig
from lab.bench.fleet import AskedQuestion, FleetPlan, fleet_json, measure_fleet
from lab.bench.remote_reuse import SAMPLE_SEC, Rhythm, measure_rhythm

SIDE = 64  # of a frame, in pixels
MEMORY = MemoryConfig(4, 8, eviction_chunk=0)


@pytest.fixture
def server():
    """Return a server and its address."""
    server = ChatServer()
    yield server, f"openai:{server.url}#{MODEL}"
    server.close()


def test_rhythm_reports_tokens_and_bytes_of_further_questions(server):
    _, address = server
    rhythm = Rhythm(MEMORY, questions=5, every_sec=(1.0, 1.0), filling_sec=2.0)
    figures = {
        one: measure_rhythm(address, RemoteSettings(one), 3_000_001, rhythm, SIDE * SIDE)
        for one in (Encoding.TIMED_IMAGES, Encoding.VIDEO)
    }
    for measured in figures.values():
        assert measured["questions"] == 4
        assert measured["prefilled"] == pytest.approx(measured["prompt_tokens"] - measured["cached"], abs=0.11)
    assert 0 < figures[Encoding.TIMED_IMAGES]["images_sent"] <= 1.5  # a new pair a second, images of older ones by name
    assert figures[Encoding.VIDEO]["images_sent"] > 4
    assert figures[Encoding.TIMED_IMAGES]["bytes"] < figures[Encoding.VIDEO]["bytes"] / 2


def test_rhythm_draws_the_times_between_questions_from_its_seed():
    first, *others = Rhythm(MEMORY, questions=50, every_sec=(10.0, 30.0), filling_sec=60.0).frames()
    assert first == 60.0 / SAMPLE_SEC
    assert (len(others), min(others) >= 20, max(others) <= 60, len(set(others)) > 20) == (49, True, True, True)
    assert [first, *others] == list(Rhythm(MEMORY, questions=50, every_sec=(10.0, 30.0), filling_sec=60.0).frames())


@pytest.mark.heavy
def test_fleet_counts_answers_and_errors_of_all_robots(server):
    chat_server, address = server
    plan = FleetPlan(address, RemoteSettings(), MEMORY, SIDE * SIDE, seconds=1.0, every_sec=1.0, first_seed=3_005_000)
    figures = measure_fleet(plan, 2)
    assert (figures["robots"], figures["errors"]) == (2, {})
    assert figures["answers"] == pytest.approx(figures["answers_per_sec"], abs=0.5)
    assert figures["answers"] >= 4
    assert 0.0 < figures["first_token_sec"]["p50"] <= figures["total_sec"]["p50"] <= figures["total_sec"]["p95"]
    assert figures["bytes_per_question"] > 500
    assert len(chat_server.received) > figures["answers"]


def test_fleet_whose_questions_fail_reports_the_errors_and_no_latency():
    failed = AskedQuestion("BusyError", 0.0, 0.0, 0, 0, 0)
    assert fleet_json([failed] * 3, robots=3, seconds=10.0) == {
        "robots": 3,
        "answers": 0,
        "errors": {"BusyError": 3},
        "answers_per_sec": 0.0,
    }


@pytest.mark.heavy
def test_fleet_ends_with_an_error_when_a_robot_cannot_start():
    plan = FleetPlan("openai:http://127.0.0.1:9/v1#none", RemoteSettings(), MEMORY, SIDE * SIDE, seconds=1.0)
    with pytest.raises(RuntimeError, match="ended without a result"):
        measure_fleet(plan, 1)
