"""SIGINT and SIGTERM, once or twice, whatever the node is doing: exit code 0 within 2 s and not a word of complaint."""

import signal
import time

import pytest
from harness import wait_until

LIMIT_SEC = 2.0
SIGNALS = [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGTERM, 2)]


def check_end(process, number, times):
    code, seconds = process.end(number, times=times)
    assert code == 0, process.log
    assert seconds < LIMIT_SEC
    assert "Traceback" not in process.log
    assert "Error" not in process.log


def ready_with_frames(client):
    client.wait_until_active()
    client.show_pictures(2)
    client.wait_for_stats(lambda stats: stats.model_state == "ready")


@pytest.mark.parametrize(("number", "times"), SIGNALS)
def test_while_idle(start, number, times):
    process, client = start(memory__sample_fps=50.0)
    client.wait_until_active()
    check_end(process, number, times)


@pytest.mark.parametrize(("number", "times"), SIGNALS)
def test_during_an_ask_with_others_waiting(start, number, times):
    process, client = start(memory__sample_fps=50.0)
    ready_with_frames(client)
    futures = [client.start_ask("work 30") for _ in range(3)]
    client.wait_for_stats(lambda stats: stats.asks_waiting == 2)
    check_end(process, number, times)
    assert len(futures) == 3


def test_deep_inside_the_model(start):
    process, client = start(memory__sample_fps=50.0)
    ready_with_frames(client)
    client.start_ask("stubborn 30")
    client.wait_for_stats(lambda stats: stats.asks_running == 1)
    check_end(process, signal.SIGINT, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_model_loads(start, number):
    process, client = start(environment={"FAKE_LOAD_SEC": "30"})
    client.wait_until_active()
    check_end(process, number, 2)


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_while_the_real_model_loads(start, number, times):
    process, client = start(fake=False)
    client.wait_until_active()
    check_end(process, number, times)


def test_while_the_real_model_answers(start):
    process, client = start(fake=False, memory__sample_fps=20.0)
    client.wait_until_active()
    client.show_pictures(4)
    client.wait_for_stats(lambda stats: stats.model_state == "ready", 60.0)
    client.start_ask(max_new_tokens=4000)
    client.wait_for_stats(lambda stats: stats.asks_running == 1)
    check_end(process, signal.SIGINT, 2)


def test_unconfigured(start):
    process, client = start(autostart="false")
    wait_until(lambda: client.diagnostics, 10.0, "diagnostics")
    time.sleep(0.1)
    check_end(process, signal.SIGINT, 1)
