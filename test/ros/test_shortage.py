"""A shortage of memory that ends: the next question is answered, or the process ends and a new one answers it."""

import resource
from pathlib import Path

import pytest
from delayed_vlm_ros.srv import AskScene
from room_camera import room_images
from waiting import PATIENCE_SEC, wait_until

QUESTION, ANSWER = "What is on the left?", "a red box"
ROOM = {"colour": "red", "shape": "box", "home": 0.12, "width": 320, "height": 240}
EXIT_RESTART = 75


def show_room(client):
    """Publish images of the room until some are kept."""
    images = room_images(**ROOM)
    kept = client.wait_for_stats().unique_frames

    def shown():
        image = images[len(images) - 1]
        images.insert(0, images.pop())
        image.header.stamp = client.node.get_clock().now().to_msg()
        client.publish(image)
        return client.find_stats(lambda stats: stats.unique_frames >= kept + 4, 0)

    wait_until(shown, "frames in the memory")


class ShortMemory:
    """A limit on the address space of a process, until it is lifted."""

    def __init__(self, process, spare_bytes):
        self._pid = process.process.pid
        self._before = resource.prlimit(self._pid, resource.RLIMIT_AS)
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + spare_bytes
        resource.prlimit(self._pid, resource.RLIMIT_AS, (limit, self._before[1]))

    def lift(self):
        resource.prlimit(self._pid, resource.RLIMIT_AS, self._before)


@pytest.mark.parametrize("spare_bytes", [0, 2_000_000])
def test_question_after_a_shortage_before_the_first_one_is_answered(start, spare_bytes):
    # given a loaded model that has not been asked yet
    process, client = start(fake=False, new_interpreter=True, memory__sample_fps=20.0)
    client.wait_until_ready()
    show_room(client)
    short = ShortMemory(process, spare_bytes)
    # when
    response = client.ask(QUESTION)
    short.lift()
    # then
    allowed = {AskScene.Response.NONE, AskScene.Response.OUT_OF_MEMORY}
    assert response.error_code in allowed, response.error_msg
    assert client.ask(QUESTION).answer == ANSWER
    assert process.alive


def test_process_whose_import_of_torch_ran_short_ends_and_a_new_one_answers(start, tmp_path):
    # given
    options = {"fake": False, "new_interpreter": True, "memory__sample_fps": 20.0}
    options |= {"persistence__folder": str(tmp_path), "persistence__period_sec": 3600.0}
    process, client = start(**options, autostart="false")
    assert client.state() == "unconfigured"
    short = ShortMemory(process, 200_000_000)
    assert client.transition("configure")
    assert client.transition("activate")
    wait_until(lambda: "are short" in process.log, lambda: f"a shortage in the log: {process.log}")
    show_room(client)
    # when
    response = client.ask(QUESTION)
    assert response.error_code == AskScene.Response.MODEL_NOT_READY
    assert process.alive
    short.lift()
    client.start_ask(QUESTION)
    # then it says why it ends
    assert process.process.wait(PATIENCE_SEC) == EXIT_RESTART
    (line,) = (line for line in process.log.splitlines() if "[FATAL]" in line)
    assert "a new process can load the model demo" in line
    assert f"exit code {EXIT_RESTART}" in line
    assert "use_respawn" in line
    # and respawn, which starts the same command, answers from the saved key frames
    _, client = start(**options, namespace=client.namespace)
    client.wait_until_ready()
    assert client.ask(QUESTION).answer == ANSWER
