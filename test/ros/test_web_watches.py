"""The page's standing questions with a node: added, answered, and unknown after the node's end."""

import pytest
from waiting import wait_until

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

from delayed_vlm_ros.errors import AskError
from delayed_vlm_ros.watches import Level, Watch
from delayed_vlm_ros.web.backends.ros import RosBackend

DARK, BRIGHT = 20, 240
NAME = "light"


def wait_for_level(observer, backend, level, shade):
    """Show images until the watch has a level: a check needs a new one."""

    def has_level():
        observer.publish(observer.image(shade=shade))
        return [one.level for one in backend.state().watches] == [level]

    wait_until(has_level, lambda: f"{level}: {backend.state()}")


def test_watches_of_a_node_are_shown_and_unknown_after_its_end(start):
    process, observer = start(memory__sample_fps=50.0, watches__max_duty=1.0, diagnostics__stale_after_sec=300.0)
    observer.wait_until_ready()
    observer.connect_images()
    made = observer.node.executor.create_task(RosBackend, observer.node)
    wait_until(made.done, "the backend")
    backend = made.result()
    try:
        wait_until(lambda: backend.state().connected, "a report of the node")
        # when
        backend.watch(Watch(NAME, "bright", last_sec=0.0, period_sec=0.1))
        wait_for_level(observer, backend, Level.NO, DARK)
        wait_for_level(observer, backend, Level.YES, BRIGHT)
        # then
        (watched,) = backend.state().watches
        assert (watched.watch.last_sec, watched.reason) == (0.0, "")
        wait_until(lambda: backend.state().alerts, "the alert")
        alert = backend.state().alerts[-1]
        assert (alert.watch, alert.is_rising) == (NAME, True)
        assert 0 < alert.stamp_ns <= watched.since_ns
        with pytest.raises(AskError, match="nothing"):
            backend.unwatch("nothing")
        with pytest.raises(AskError, match="attic"):
            backend.watch(Watch("other", "bright", camera="attic"))
        # when
        process.close()
        # then
        wait_until(lambda: backend.state().watches[0].level is Level.UNKNOWN, "the watch to be unknown")
        assert backend.state().watches[0].reason == "no connection to the node"
        assert len(backend.state().alerts) == 1
    finally:
        closed = observer.node.executor.create_task(backend.close)  # in its thread: it must not find half of it
        wait_until(closed.done, "the backend to close")
