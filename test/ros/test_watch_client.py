"""``WatchClient`` and ``delayed-vlm watch`` against a node with a fake engine."""

import json
import signal

import pytest
from command_line import ForkedCommand, run_here
from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.msg import Alert, WatchSettings, WatchState
from harness import FAKE_SCENE_MEMORY, NodeProcess, showing
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.errors import NodeNotFoundError
from delayed_vlm_ros.ros import watch_client as module
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.watch_client import WatchClient

PARAMETERS = {"memory__sample_fps": 50.0, "watches__max_duty": 1.0, "diagnostics__stale_after_sec": 300.0}
NODE_PARAMETERS = {"model.name": "demo", **{name.replace("__", "."): value for name, value in PARAMETERS.items()}}


class Connected:
    """A client with a node of its own, and what it has received."""

    def __init__(self, client: SceneMemoryClient) -> None:
        self.client = client
        self.alerts: list[Alert] = []
        self.watches = WatchClient(client, on_alert=self.alerts.append)
        assert client.wait_until(self.watches.is_ready, PATIENCE_SEC)

    def wait_for_level(self, name, level):
        def found():
            states = {state.settings.name: state for state in self.watches.states or ()}
            return name in states and states[name].level == level

        assert self.client.wait_until(found, PATIENCE_SEC), self.watches.states


@pytest.fixture(scope="module")
def node(start_for_module):
    _, observer = start_for_module(**PARAMETERS)
    observer.wait_until_ready()
    with showing(observer):
        yield observer


@pytest.fixture
def connected(node):
    with SceneMemoryClient.connect(node.namespace) as client:
        made = Connected(client)
        yield made
        made.watches.close()


def settings(question, name="", **fields):
    return WatchSettings(name=name, question=question, **{"period_sec": 0.1, **fields})


def file_question(file):
    return f"file {file}"


def test_watch_is_added_followed_listed_and_removed(connected, tmp_path):
    file = tmp_path / "open"
    # when
    added = connected.watches.watch(settings(file_question(file), "door"))
    assert added.success, added.error_msg
    connected.wait_for_level("door", WatchState.NO)
    file.touch()
    # then
    connected.wait_for_level("door", WatchState.YES)
    assert connected.client.wait_until(lambda: bool(connected.alerts), PATIENCE_SEC)
    assert (connected.alerts[-1].watch, connected.alerts[-1].edge) == ("door", Alert.RISING)
    assert [state.settings.name for state in connected.watches.list_watches().watches] == ["door"]
    # when
    assert connected.watches.unwatch("door").success
    # then
    assert not connected.watches.unwatch("door").success
    assert connected.client.wait_until(lambda: connected.watches.states == (), PATIENCE_SEC)


def test_client_that_connects_later_receives_the_last_alerts(connected):
    assert connected.client.wait_until(lambda: bool(connected.alerts), PATIENCE_SEC)
    assert connected.alerts[-1].watch == "door"


def test_wait_for_a_yes_returns_its_alert(connected, tmp_path):
    file, states = tmp_path / "open", []

    def open_file(state):
        states.append(state)
        if state.level == WatchState.NO:
            file.touch()

    result = connected.watches.watch_for(settings(file_question(file)), open_file)
    assert result.success, result.error_msg
    assert result.alert.edge == Alert.RISING
    assert [state.level for state in states if state.checks][0] == WatchState.NO  # noqa: RUF015


def test_cancelled_wait_returns_the_error_of_the_node(connected, tmp_path):
    question = settings(file_question(tmp_path / "open"))
    result = connected.watches.watch_for(question, cancelled=lambda: bool(connected.watches.states))
    assert result.error_code == AskScene.Result.CANCELLED
    assert connected.client.wait_until(lambda: connected.watches.states == (), PATIENCE_SEC)


def test_wait_outlasts_the_time_after_which_a_watch_counts_as_lost(connected, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOST_SEC", 0.7)  # the node reports every 0.1 s and its watches every 0.5 s
    result = connected.watches.watch_for(settings(file_question(tmp_path / "open"), lifetime_sec=1.5))
    assert result.error_code == AskScene.Result.TIMEOUT


@pytest.fixture
def own_node(start):
    process, observer = start(namespace="/lost", **PARAMETERS)
    observer.wait_until_ready()
    observer.show_images(2)
    return process, observer


def kill(process):
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()


@pytest.mark.parametrize(("restarts", "message"), [(True, "restarted"), (False, "no report of scene_memory")])
def test_wait_ends_when_the_node_is_killed(own_node, tmp_path, monkeypatch, restarts, message):
    process, observer = own_node
    monkeypatch.setattr(module, "_SILENT_SEC", 60.0 if restarts else 1.5)
    processes = []

    def kill_once():
        present = [state for state in watches.states or () if state.settings.name.startswith("gone ")]
        if present and not processes:
            kill(process)
            processes.append(
                NodeProcess(observer.namespace, FAKE_SCENE_MEMORY, NODE_PARAMETERS, {}, {}) if restarts else None
            )
        return False

    with SceneMemoryClient.connect(observer.namespace) as client:
        watches = WatchClient(client)
        try:
            with pytest.raises(NodeNotFoundError, match=message):
                watches.watch_for(settings(file_question(tmp_path / "open"), "gone"), cancelled=kill_once)
        finally:
            watches.close()
            for restarted in filter(None, processes):
                restarted.close()


def test_missing_node_is_reported(ros):
    with SceneMemoryClient.connect("/nowhere") as client:
        watches = WatchClient(client)
        with pytest.raises(NodeNotFoundError, match="nowhere"):
            watches.list_watches(timeout_sec=0.1)
        with pytest.raises(NodeNotFoundError, match="nowhere"):
            watches.watch_for(settings("bright"), timeout_sec=0.1)
        watches.close()


# Command --------------------------------------------------------------------------------------------------------------


class Command(ForkedCommand):
    """``delayed-vlm watch`` in a process."""

    def __init__(self, node, folder, *arguments):
        super().__init__("watch", "--namespace", node.namespace, *arguments, cwd=folder)

    def wait_for(self, text):
        def found():
            assert text in self.stdout or self.process.poll() is None, f"ended: {self.stdout}{self.stderr}"
            return text in self.stdout

        wait_until(found, lambda: f"{text}: {self.stdout}{self.stderr}")

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_SEC)


@pytest.fixture
def command(node, tmp_path):
    started = []

    def start_command(*arguments):
        started.append(Command(node, tmp_path, *arguments))
        return started[-1]

    yield start_command
    for one in started:
        one.close()


def names(connected):
    return [state.settings.name for state in connected.watches.list_watches().watches]


def test_command_shows_changes_with_evidence_and_removes_its_watch_at_the_end(command, connected, tmp_path):
    file = tmp_path / "open"
    running = command(file_question(file), "--every", "0.1")
    running.wait_for("Ctrl-C removes the watch")
    running.wait_for("NO        p(yes) 0.10")
    file.touch()
    # when
    running.wait_for("YES       p(yes) 0.90")
    running.wait_for("key frame ")
    (name,) = names(connected)
    assert name.startswith(f"file {file}"[:50])
    # then
    assert running.end(signal.SIGINT) == 0
    assert names(connected) == []
    assert running.stdout.count("YES ") == 1
    assert "Traceback" not in running.stderr


def test_command_shows_a_question_without_yes_or_no_as_unknown(command, connected):
    running = command("strange", "--every", "0.1", "--json")
    running.wait_for("the answer starts with 'perhaps'")
    assert running.end(signal.SIGTERM) == 0
    assert names(connected) == []
    levels = {json.loads(line)["level"] for line in running.stdout.splitlines()}
    assert levels == {"unknown"}


def test_command_with_once_ends_with_the_first_yes_and_leaves_out_earlier_alerts(command, connected, tmp_path):
    # given an alert of an earlier watch of this name
    file = tmp_path / "open"
    file.touch()
    connected.watches.watch(settings(file_question(file), "door"))
    connected.wait_for_level("door", WatchState.YES)
    connected.watches.unwatch("door")
    file.unlink()
    running = command(file_question(file), "--every", "0.1", "--once", "--name", "door", "--confirm", "2", "3")
    running.wait_for("Ctrl-C removes the watch")
    (added,) = connected.watches.list_watches().watches
    assert (added.settings.yes_checks, added.settings.of_checks, added.settings.once) == (2, 3, True)
    running.wait_for("NO        p(yes) 0.10")
    assert "YES" not in running.stdout
    # when
    file.touch()
    # then
    assert running.end() == 0
    assert running.stdout.count("YES ") == 1
    assert names(connected) == []


def test_command_leaves_a_watch_that_was_there_before(command, connected, node, tmp_path):
    connected.watches.watch(WatchSettings(name="light", question="bright"))
    running = command("bright", "--name", "light")
    running.wait_for("was on the node already and stays")
    assert running.end(signal.SIGINT) == 0
    assert names(connected) == ["light"]
    # when
    listed = run_here("watch", "--list", "--namespace", node.namespace, cwd=tmp_path)
    listed_json = run_here("watch", "--list", "--json", "--namespace", node.namespace, cwd=tmp_path)
    shown = run_here("status", "--namespace", node.namespace, cwd=tmp_path)
    removed = run_here("watch", "--remove", "light", "--namespace", node.namespace, cwd=tmp_path)
    # then
    assert "light: bright" in listed.stdout
    assert json.loads(listed_json.stdout)["watches"][0]["name"] == "light"
    assert "watch light" in shown.stdout
    assert (removed.returncode, removed.stdout) == (0, "removed watch 'light'\n")
    assert names(connected) == []


def test_command_fails_when_somebody_else_removes_its_watch(command, connected):
    running = command("bright", "--name", "light")
    running.wait_for("Ctrl-C removes the watch")
    connected.watches.unwatch("light")
    assert running.end() == 1
    assert running.stderr.startswith("error: the node no longer has the watch")


@pytest.mark.parametrize(
    ("arguments", "named"), [(["bright", "--camera", "attic"], "attic"), (["--remove", "nothing"], "'nothing'")]
)
def test_command_shows_the_error_of_the_node(node, tmp_path, arguments, named):
    done = run_here("watch", *arguments, "--namespace", node.namespace, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
