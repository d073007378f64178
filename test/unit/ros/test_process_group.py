"""Nodes as processes: how they are started, watched and ended. The nodes are stand-ins that know nothing of ROS."""

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
        sys.stderr.write("the last word\\n")
        sys.exit(3)
    """,
    "obedient": """
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
    "telling": """
        import os, sys
        print(*sys.argv[1:], sep="\\n")
        print(os.environ["WHERE"], os.getsid(0) == os.getpid())
    """,
}


@pytest.fixture
def group(tmp_path, monkeypatch):
    """An open group whose processes find stand-ins where this package's nodes would be."""
    package = tmp_path / "stand_ins"
    package.mkdir()
    for name, text in NODES.items():
        lines = text.strip("\n").splitlines()
        (package / f"{name}.py").write_text("\n".join(line[8:] for line in lines) + "\n", encoding="utf-8")
    names = (*NODES, "mumbling", "chatty")
    monkeypatch.setattr(process_group, "NODE_MODULES", {name: f"stand_ins.{name}" for name in names})
    monkeypatch.chdir(tmp_path)
    with NodeGroup({**os.environ, "WHERE": "here", "PYTHONSAFEPATH": ""}) as opened:
        yield opened


def start(group, *names, **parameters):
    for name in names:
        group.start(name, params_file="/etc/some.yaml", parameters=parameters)


def is_alive(process):
    return process.poll() is None


def test_a_node_that_dies_is_told_with_the_end_of_its_output(group):
    # given
    start(group, "obedient", "dying")

    # when
    with pytest.raises(NodeDiedError) as caught:
        wait_until(lambda: group.check() is not None, "the node's death")

    # then
    text = str(caught.value)
    assert text.startswith("the node dying ended with exit code 3. The end of its output:\nline 29\n")
    assert text.endswith("the last word")
    assert len(text.splitlines()) == 13


def test_output_that_is_no_text_is_shown_as_far_as_it_goes(group, tmp_path):
    (tmp_path / "stand_ins/mumbling.py").write_text(
        "import sys; sys.stdout.buffer.write(b'\\xff\\xfe word'); sys.exit(1)", encoding="utf-8"
    )
    start(group, "mumbling")
    with pytest.raises(NodeDiedError, match="\ufffd\ufffd word"):
        wait_until(lambda: group.check() is not None, "the node's death")


def test_as_long_as_all_run_a_check_passes(group):
    start(group, "obedient")
    wait_until(lambda: group.log("obedient") == "ready", "the node")
    group.check()


def test_arguments_and_environment_reach_the_node_in_a_session_of_its_own(group):
    # when
    group.start("telling", params_file="/etc/some.yaml", parameters={"model.name": "5", "rate": 5})
    wait_until(lambda: "here" in group.log("telling"), "its words")

    # then
    assert group.log("telling").splitlines() == [
        "--ros-args",
        "--params-file",
        "/etc/some.yaml",
        "-p",
        'model.name:="5"',
        "-p",
        "rate:=5",
        "here True",
    ]


def test_stopping_gives_every_exit_code(group, monkeypatch):
    # given one that is gone already and one that listens, and all the time that it may need
    monkeypatch.setattr(process_group, "_END_TIMEOUT_SEC", PATIENCE_SEC)
    start(group, "dying", "obedient")
    wait_until(lambda: group.log("obedient") == "ready", "the node")
    processes = list(group._processes.values())
    processes[0].wait()

    # when
    exit_codes = group.stop()

    # then
    assert exit_codes == {"dying": 3, "obedient": 0}
    assert not any(is_alive(process) for process in processes)
    assert group.stop() == {}
    group.check()


def test_a_node_that_does_not_end_is_killed(group, monkeypatch):
    # given
    monkeypatch.setattr(process_group, "_END_TIMEOUT_SEC", 0.5)
    start(group, "deaf")
    wait_until(lambda: group.log("deaf") == "ready", "the node")

    # then
    assert group.stop() == {"deaf": -signal.SIGKILL}


def test_leaving_the_group_ends_the_nodes_and_takes_the_logs_away(group, monkeypatch):
    # given
    monkeypatch.setattr(process_group, "_END_TIMEOUT_SEC", PATIENCE_SEC)
    inner = NodeGroup(dict(os.environ))
    start(inner, "obedient")
    wait_until(lambda: inner.log("obedient") == "ready", "the node")
    process, logs = inner._processes["obedient"], inner._logs
    assert logs.is_dir()

    # when
    with pytest.raises(RuntimeError, match="something else"), inner:
        raise RuntimeError("something else went wrong")

    # then
    assert process.returncode == 0  # waited for already
    assert not logs.exists()


def test_a_group_that_never_started_anything_ends_quietly():
    with NodeGroup({}) as empty:
        empty.check()
        assert empty.stop() == {}


def test_the_log_is_not_a_pipe_that_fills_up(group, tmp_path):
    (tmp_path / "stand_ins/chatty.py").write_text("print('x' * 1_000_000)\nprint('done')\n")
    start(group, "chatty")
    process = group._processes["chatty"]
    try:
        assert process.wait(timeout=PATIENCE_SEC) == 0
    except subprocess.TimeoutExpired:
        pytest.fail("it waits for somebody to read")
    assert group.log("chatty").endswith("done")


LEADER = """
import os, sys, time
from delayed_vlm_ros.ros.process_group import NodeGroup, exit_on_signals

with exit_on_signals(), NodeGroup(dict(os.environ)) as group:
    group.start("obedient", params_file="/etc/some.yaml", parameters={})
    print(group._processes["obedient"].pid, group._logs, flush=True)
    while True:
        time.sleep(1)
"""


def start_leader(tmp_path):
    """A process that leads a group; gives it, its node's process id, and the folder of its logs."""
    (tmp_path / "scripts").mkdir()  # where the stand-ins' package does not hide ours
    (tmp_path / "scripts" / "leader.py").write_text(LEADER, encoding="utf-8")
    leader = subprocess.Popen([sys.executable, "scripts/leader.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    node, logs = leader.stdout.readline().split(maxsplit=1)
    log = Path(logs.strip()) / "obedient.log"
    wait_until(lambda: "ready" in log.read_text(encoding="utf-8"), "the node")
    return leader, int(node), log.parent


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_ends_the_leader_ends_its_nodes(group, tmp_path, number):
    leader, node, logs = start_leader(tmp_path)
    leader.send_signal(number)
    assert leader.wait(timeout=PATIENCE_SEC) == 128 + number
    assert not is_running(node)
    assert not logs.exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux's setpriv is not here")
def test_nodes_do_not_outlive_a_leader_that_was_killed(group, tmp_path):
    leader, node, _ = start_leader(tmp_path)
    leader.kill()
    leader.wait(timeout=PATIENCE_SEC)
    wait_until(lambda: not is_running(node), "the node's end")
