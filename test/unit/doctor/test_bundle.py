"""The file of a support case: its content, and that it has no secrets."""

import json
import os
import stat
import zipfile

import pytest

from delayed_vlm_ros.doctor import bundle
from delayed_vlm_ros.doctor.diagnosis import Diagnosis
from delayed_vlm_ros.doctor.finding import ok
from delayed_vlm_ros.doctor.observation import Observation
from delayed_vlm_ros.doctor.running import Answer
from delayed_vlm_ros.errors import BadRequestError

SECRET = "planted-0123456789"
VALUES = [{"key": "state", "value": "active"}, {"key": "password", "value": "open sesame"}]
URL = f"rtsp://operator:{SECRET}@camera/1"


@pytest.fixture
def environment(tmp_path):
    return {
        "HOME": str(tmp_path),
        "ROS_LOG_DIR": str(tmp_path / "log"),
        "ROS_DOMAIN_ID": "35",
        "ROS_STATIC_PEERS": URL,
        "DELAYED_VLM_WEB_TOKEN": SECRET + "web",
        "HF_TOKEN": SECRET + "hub",
        "CUDA_SECRET": SECRET + "cuda",
        "SSH_CONNECTION": "not of ROS",
        "PYTHONPATH": f"{tmp_path}/ws",
    }


@pytest.fixture
def diagnosis():
    seen = Observation(
        "rmw",
        "/robot/scene_memory",
        parameters={
            "model.name": URL,
            "camera.password": SECRET,
            "ask.max_new_tokens": 128,
            "urls": [URL],
            "pin.password": 918273,
        },
        page_parameters={"port": 8080},
        reports={
            "/diagnostics": [{"status": [{"message": f"cannot open {URL}", "values": VALUES}]}],
            "/robot/scene_memory/memory_stats": [{"camera": "front", "warnings": [f"token={SECRET}"]}],
        },
    )
    return Diagnosis((ok("camera", f"reads {URL}"),), seen)


def content(diagnosis, environment, tmp_path, **options):
    file = tmp_path / "case.zip"
    with bundle.new_file(file) as opened:
        names = bundle.write_bundle(opened, diagnosis, environment=environment, **options)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == names
        return {name: archive.read(name) for name in names}


def write_logs(tmp_path):
    folder = tmp_path / "log"
    (folder / "launched").mkdir(parents=True)
    line = f"[INFO] [1.0] [robot.scene_memory]: token: {SECRET}, {URL}, {SECRET}web, {tmp_path}/x\n"
    for name in ("a.log", "b.log", "launched/c.log", "d.log"):
        (folder / name).write_text(line)
    (folder / "other.log").write_text("[INFO] [1.0] [camera]: other\n")
    (folder / "d.log").write_text("x" * 2 * bundle._LOG_BYTES + "\n" + line)


def test_archive_has_what_support_needs_and_no_secret(diagnosis, environment, tmp_path):
    # given
    write_logs(tmp_path)
    # when
    files = content(diagnosis, environment, tmp_path)
    # then
    assert set(files) >= {
        *("README.txt", "doctor.txt", "doctor.json", "versions.txt", "environment.txt", "parameters.json"),
        *("diagnostics.json", "statistics.json"),
    }
    for name, data in files.items():
        assert SECRET.encode() not in data, name
        assert str(tmp_path).encode() not in data, name
    logs = [data for name, data in files.items() if name.startswith("log/")]
    assert len(logs) == 3
    assert all(len(data) < 1.1 * bundle._LOG_BYTES and b"scene_memory]" in data for data in logs)
    variables = files["environment.txt"].decode().splitlines()
    assert "ROS_DOMAIN_ID=35" in variables
    assert "PYTHONPATH=~/ws" in variables
    assert "DELAYED_VLM_WEB_TOKEN=<removed>" in variables
    assert not any(line.startswith(("SSH", "HF_TOKEN", "HOME")) for line in variables)
    parameters = json.loads(files["parameters.json"])["/robot/scene_memory"]
    assert parameters["ask.max_new_tokens"] == 128
    assert parameters["pin.password"] == "<removed>"
    (diagnostics,) = json.loads(files["diagnostics.json"])
    assert diagnostics["status"][0]["values"] == [VALUES[0], {"key": "password", "value": "<removed>"}]
    assert parameters["urls"] == ["rtsp://<removed>@camera/1"]
    assert b"numpy==" in files["versions.txt"]


def test_log_file_that_is_rotated_meanwhile_is_noted(diagnosis, environment, tmp_path, monkeypatch):
    # given a log file that exists while log files are listed only
    write_logs(tmp_path)
    monkeypatch.setattr(bundle, "_log_files", lambda *_: [tmp_path / "log" / "a.log", tmp_path / "log" / "gone.log"])
    # when
    files = content(diagnosis, environment, tmp_path)
    # then
    assert "log/1_a.log" in files
    assert files["log/2_gone.log.error.txt"] == b"~/log/gone.log cannot be read (No such file or directory)\n"


def test_full_disk_is_one_error_and_leaves_no_file(diagnosis, environment, tmp_path, monkeypatch):
    # given
    full = os.open("/dev/full", os.O_RDWR)
    file = tmp_path / "case.zip"
    file.touch()
    monkeypatch.setattr(bundle.os, "open", lambda *_: full)
    # then
    with (
        pytest.raises(BadRequestError, match=r"No space left on device.*: free disk space"),
        bundle.new_file(file) as opened,
    ):
        bundle.write_bundle(opened, diagnosis, environment=environment)
    assert not file.exists()


def test_archive_without_ros_is_complete(environment, tmp_path):
    files = content(Diagnosis((), None), environment, tmp_path)
    assert json.loads(files["parameters.json"]) == {}
    assert not any(name.startswith(("images/", "log/")) for name in files)


def test_images_are_added_on_request_only(diagnosis, environment, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "run_child", lambda *_, **__: Answer([["7.jpg", "//8="]]))
    without = tmp_path / "without"
    without.mkdir()
    assert not [name for name in content(diagnosis, environment, without) if name.startswith("images")]
    assert content(diagnosis, environment, tmp_path, with_images=True)["images/7.jpg"] == b"\xff\xff"


def test_missing_images_are_explained(diagnosis, environment, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "run_child", lambda *_, **__: Answer(error="no node: start it"))
    assert content(diagnosis, environment, tmp_path, with_images=True)["images/error.txt"] == b"no node: start it"


def test_existing_file_is_not_overwritten(tmp_path):
    file = tmp_path / "case.zip"
    file.write_text("mine")
    with pytest.raises(BadRequestError, match="exists"), bundle.new_file(file):
        pass
    assert file.read_text() == "mine"


def test_file_that_cannot_be_created_is_an_error(tmp_path):
    with pytest.raises(BadRequestError, match="cannot create"), bundle.new_file(tmp_path / "none" / "case.zip"):
        pass


def test_failed_archive_is_removed_and_a_complete_one_is_private(tmp_path):
    file = tmp_path / "case.zip"
    with pytest.raises(KeyboardInterrupt), bundle.new_file(file):
        raise KeyboardInterrupt
    assert not file.exists()
    with bundle.new_file(file):
        pass
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
