"""SIGINT and SIGTERM, once or twice, in every state of the node: exit code 0 within 2 s and no error in the log.

The nodes run in interpreters of their own, as those of users. The limit is in seconds of an idle machine: see
``end_process``.
"""

import re
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

from waiting import wait_until

LIMIT_SEC = 2.0
SIGNALS = [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGTERM, 2)]


def segments():
    """Return the shared-memory segments of Fast DDS, of all processes on this machine."""
    return {
        str(path) for path in Path("/dev/shm").glob("fastdds_*") if re.fullmatch(r"fastdds_[0-9a-f]{16}", path.name)
    }


def check_end(process, number, times):
    code, seconds = process.end(number, times=times)
    assert code == 0, process.log
    assert seconds < LIMIT_SEC
    assert "Traceback" not in process.log
    assert "Error" not in process.log


def start_all(start, signals, **options):
    """Start one node for each signal; return them with their clients."""
    started = [start(**options, new_interpreter=True) for _ in signals]
    for _, client in started:
        client.wait_until_active()
    return started


def wait_for_text(goals):
    """Wait until one of the goals has text. Goals that are sent together may be taken in either order."""
    wait_until(lambda: any(got.answer_tokens for goal in goals for got in goal.feedback), "an answer to grow")


@contextmanager
def stream(client, rate_hz=60):
    """Publish images from before the signal until after the end."""
    message = client.image(height=480, width=640)
    ending = threading.Event()

    def publish():
        while not ending.wait(1 / rate_hz):
            message.header.stamp = client.node.get_clock().now().to_msg()
            client.publish(message)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    yield
    ending.set()
    thread.join()


def test_shutdown_while_idle(start):
    for (process, _), (number, times) in zip(start_all(start, SIGNALS), SIGNALS, strict=True):
        check_end(process, number, times)


def test_shutdown_while_images_arrive(start):
    started = start_all(start, SIGNALS, memory__sample_fps=50.0)
    for (process, client), (number, times) in zip(started, SIGNALS, strict=True):
        with stream(client):
            client.wait_for_stats(lambda stats: stats.images_received > 10)
            check_end(process, number, times)


def test_shutdown_during_a_question_with_others_waiting(start):
    started = start_all(start, SIGNALS, memory__sample_fps=50.0)
    for (process, client), (number, times) in zip(started, SIGNALS, strict=True):
        client.show_images(2)
        goals = [client.start_goal("say") for _ in range(2)]
        wait_for_text(goals)
        futures = [client.start_ask("work 600") for _ in range(2)]
        client.wait_for_node_stats(lambda stats: stats.questions_running == 1 and stats.questions_waiting == 3)
        check_end(process, number, times)
        assert len(futures) == 2


def test_shutdown_inside_the_model(start, tmp_path):
    process, client = start(new_interpreter=True, memory__sample_fps=50.0)
    client.wait_until_active()
    client.show_images(2)
    client.start_ask(f"hold {tmp_path / 'never'}")
    client.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    check_end(process, signal.SIGINT, 2)


def test_shutdown_while_the_model_loads(start, tmp_path):
    never = {"FAKE_LOAD_UNTIL": str(tmp_path / "never")}
    for (process, _), (number, times) in zip(start_all(start, SIGNALS, environment=never), SIGNALS, strict=True):
        check_end(process, number, times)


def test_shutdown_while_the_real_model_loads(start):
    process, client = start(fake=False, new_interpreter=True)
    client.wait_until_active()
    check_end(process, signal.SIGINT, 2)


def test_shutdown_while_the_real_model_answers(start):
    process, client = start(fake=False, new_interpreter=True, memory__sample_fps=20.0)
    client.wait_until_ready()
    client.show_images(4)
    # A small model may answer briefly, so several questions are sent.
    futures = [client.start_ask(f"Question {number}?", max_new_tokens=4000) for number in range(4)]
    goals = [client.start_goal(f"Question {number}?", max_new_tokens=4000) for number in range(4)]
    wait_until(lambda: any(future.done() for future in futures) or goals[0].done, "the first answer")
    check_end(process, signal.SIGTERM, 2)


def test_shutdown_while_unconfigured(start):
    process, client = start(autostart="false")
    client.wait_for_status("lifecycle")
    check_end(process, signal.SIGINT, 1)


def test_shutdown_leaves_no_shared_memory(start):
    # given the client's shared memory, which exists from its first node on
    client_of_first = start(autostart="false")[1]
    client_of_first.wait_for_status("lifecycle")
    before = segments()
    process, client = start(new_interpreter=True, memory__sample_fps=50.0)
    client.wait_until_active()
    client.show_images(2)
    client.start_ask("work 600")
    client.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    mapped = Path(f"/proc/{process.process.pid}/maps").read_text(encoding="utf-8")
    own = {segment for segment in segments() - before if segment in mapped}
    assert own
    # when
    check_end(process, signal.SIGTERM, 1)
    # then
    assert not own & segments()
