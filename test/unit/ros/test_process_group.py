"""Start, check and stop of node processes, with fake nodes that do not use ROS."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_SEC, wait_until

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.errors import NodeDiedError
from delayed_vlm_ros.ros import process_group
from delayed_vlm_ros.ros.process_group import NodeGroup

NODES = {
    "dying": """
        import sys
        for number in range(40):
            print("line", number)
        sys.stderr.write("the last line\\n")
        sys.exit(3)
    """,
    "running": """
        import signal, sys, time
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        print("ready", flush=True)
        time.sleep(600)
    """,
    "deaf": """
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(600)
    """,
    "reporting": """
        import os, sys
        print(*sys.argv[1:], sep="\\n")
        print(os.environ["WHERE"], os.getsid(0) == os.getpid())
    """,
}


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Return an open group whose node modules are fake nodes."""
    package = tmp_path / "fake_nodes"
    package.mkdir()
    for name, text in NODES.items():
        lines = text.strip("\n").splitlines()
        (package / f"{name}.py").write_text("\n".join(line[8:] for line in lines) + "\n", encoding="utf-8")
    names = (*NODES, "binary", "chatty")
    monkeypatch.setattr(process_group, "NODE_MODULES", {name: f"fake_nodes.{name}" for name in names})
    monkeypatch.chdir(tmp_path)
    with NodeGroup({**os.environ, "WHERE": "here", "PYTHONSAFEPATH": ""}) as node_group:
        yield node_group


def start(group, *names, **parameters):
    for name in names:
        group.start(name, params_file="/etc/some.yaml", parameters=parameters)


def is_alive(process):
    return process.poll() is None


def test_died_node_is_reported_with_its_last_output(group):
    # given
    start(group, "running", "dying")

    # when
    with pytest.raises(NodeDiedError) as caught:
        wait_until(lambda: group.check() is not None, "the node's end")

    # then
    text = str(caught.value)
    heading, first, *_ = text.splitlines()
    assert "dying" in heading
    assert "exit code 3" in heading
    assert first == "line 29"
    assert text.endswith("the last line")
    assert len(text.splitlines()) == 13


def test_binary_output_is_shown_with_replacement_characters(group, tmp_path):
    (tmp_path / "fake_nodes/binary.py").write_text(
        "import sys; sys.stdout.buffer.write(b'\\xff\\xfe word'); sys.exit(1)", encoding="utf-8"
    )
    start(group, "binary")
    with pytest.raises(NodeDiedError, match="\ufffd\ufffd word"):
        wait_until(lambda: group.check() is not None, "the node's end")


def test_check_passes_while_all_nodes_run(group):
    start(group, "running")
    wait_until(lambda: group.log("running") == "ready", "the node")
    group.check()


def test_node_has_arguments_environment_and_its_own_session(group):
    # when
    group.start("reporting", params_file="/etc/some.yaml", parameters={"model.name": "5", "rate": 5})
    wait_until(lambda: "here" in group.log("reporting"), "its output")

    # then
    assert group.log("reporting").splitlines() == [
        "--ros-args",
        "--params-file",
        "/etc/some.yaml",
        "-p",
        'model.name:="5"',
        "-p",
        "rate:=5",
        "here True",
    ]


def test_stop_returns_every_exit_code(group, monkeypatch):
    # given a node that has ended and one that handles SIGINT, with enough time
    monkeypatch.setattr(process_group, "_STOP_TIMEOUT_SEC", PATIENCE_SEC)
    start(group, "dying", "running")
    wait_until(lambda: group.log("running") == "ready", "the node")
    processes = list(group._processes.values())
    processes[0].wait()

    # when
    exit_codes = group.stop()

    # then
    assert exit_codes == {"dying": 3, "running": 0}
    assert not any(is_alive(process) for process in processes)
    assert group.stop() == {}
    group.check()


def test_node_that_ignores_sigint_is_killed(group, monkeypatch):
    # given
    monkeypatch.setattr(process_group, "_STOP_TIMEOUT_SEC", 0.5)
    start(group, "deaf")
    wait_until(lambda: group.log("deaf") == "ready", "the node")

    # then
    assert group.stop() == {"deaf": -signal.SIGKILL}


def test_exit_of_the_group_stops_the_nodes_and_removes_the_logs(group, monkeypatch):
    # given
    monkeypatch.setattr(process_group, "_STOP_TIMEOUT_SEC", PATIENCE_SEC)
    inner = NodeGroup(dict(os.environ))
    start(inner, "running")
    wait_until(lambda: inner.log("running") == "ready", "the node")
    process, logs = inner._processes["running"], inner._logs
    assert logs.is_dir()

    # when
    with pytest.raises(RuntimeError, match="planted"), inner:
        raise RuntimeError("planted")

    # then
    assert process.returncode == 0  # already waited for
    assert not logs.exists()


def test_empty_group_exits():
    with NodeGroup({}) as empty:
        empty.check()
        assert empty.stop() == {}


def test_large_output_does_not_block_the_node(group, tmp_path):
    (tmp_path / "fake_nodes/chatty.py").write_text("print('x' * 1_000_000)\nprint('done')\n")
    start(group, "chatty")
    process = group._processes["chatty"]
    try:
        assert process.wait(timeout=PATIENCE_SEC) == 0
    except subprocess.TimeoutExpired:
        pytest.fail("the node is blocked")
    assert group.log("chatty").endswith("done")


LEADER = """
import os, sys, time
from delayed_vlm_ros.ros.process_group import NODE_MODULES, NodeGroup, exit_on_signals

NODE_MODULES["running"] = "fake_nodes.running"
with exit_on_signals(), NodeGroup(dict(os.environ)) as group:
    group.start("running", params_file="/etc/some.yaml", parameters={})
    print(group._processes["running"].pid, group._logs, flush=True)
    while True:
        time.sleep(1)
"""


def start_leader(tmp_path):
    """Start a process with a node group. Return it, the process id of its node and the folder of the logs."""
    (tmp_path / "scripts").mkdir()  # a folder from which the fake nodes' package is not imported
    (tmp_path / "scripts" / "leader.py").write_text(LEADER, encoding="utf-8")
    leader = subprocess.Popen([sys.executable, "scripts/leader.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    node, logs = leader.stdout.readline().split(maxsplit=1)
    log = Path(logs.strip()) / "running.log"
    wait_until(lambda: "ready" in log.read_text(encoding="utf-8"), "the node")
    return leader, int(node), log.parent


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_leader_stops_its_nodes(group, tmp_path, number):
    leader, node, logs = start_leader(tmp_path)
    leader.send_signal(number)
    assert leader.wait(timeout=PATIENCE_SEC) == 128 + number
    assert not is_running(node)
    assert not logs.exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux's setpriv is not installed")
def test_nodes_end_when_the_leader_is_killed(group, tmp_path):
    leader, node, _ = start_leader(tmp_path)
    leader.kill()
    leader.wait(timeout=PATIENCE_SEC)
    wait_until(lambda: not is_running(node), "the node's end")
