"""Checks of Python, GPU, middleware, clock, disk and page: OK, WARN and ERROR, and a remedy for each that is not OK."""

import fcntl
import http.server
import socket
import threading
import types
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from delayed_vlm_ros.doctor import clocks, compute, disk, environment, middleware, page
from delayed_vlm_ros.doctor.finding import Level
from delayed_vlm_ros.doctor.observation import Topic
from delayed_vlm_ros.doctor.running import Answer
from delayed_vlm_ros.images.messages import RAW_TYPE
from delayed_vlm_ros.resources import log_folder
from delayed_vlm_ros.web.access import TOKEN_VARIABLE

GPU = {"name": "NVIDIA X", "free": 8 * 10**9, "total": 12 * 10**9, "bfloat16": True, "error": ""}
TORCH = {"version": "2.14", "cuda": "13.0", "devices": [GPU], "warnings": []}


def levels(findings):
    assert all(one.remedy or ": " in one.text or one.level is Level.OK for one in findings), findings
    return {one.subject: one.level.name for one in findings}


# --- Python ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    """Return the versions of installed packages, which a test may change."""
    found = {"numpy": "2.4.0", "torch": "2.14.0", "nicegui": "3.18.0"}

    def version(name):
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    declared = ["numpy>=1.22", 'torch>=2.6; extra == "vlm"', 'nicegui<4,>=3.4; extra == "web"', 'ray; extra == "ray"']
    monkeypatch.setattr(environment, "_requirements", lambda: [Requirement(one) for one in declared])
    monkeypatch.setattr(environment, "version", version)
    monkeypatch.setattr(environment, "is_installed", lambda _module: False)
    return found


def test_this_python_is_ok():
    assert levels(environment.python_findings()) == {"python": "OK"}


@pytest.mark.parametrize(("load", "level"), [(0.2, "OK"), (6.0, "WARN")])
def test_load(monkeypatch, load, level):
    monkeypatch.setattr(environment, "load_per_processor", lambda: load)
    assert levels(environment.load_findings()) == {"load": level}


def test_old_python_is_an_error(monkeypatch):
    monkeypatch.setattr(environment, "_MIN_PYTHON", (9, 0))
    assert levels(environment.python_findings()) == {"python": "ERROR"}


def test_packages_of_the_declared_versions_are_ok(installed):
    found = environment.package_findings()
    assert set(levels(found).values()) == {"OK"}
    assert "torch 2.14.0" in found[1].line
    assert "ray for delayed-vlm replay --ray (pip install '.[ray]')" in found[2].line


def test_missing_package_of_the_model_is_an_error_with_the_extra(installed):
    del installed["torch"]
    found = environment.package_findings()
    assert levels(found)["packages for the model"] == "ERROR"
    assert "pip install '.[vlm]'" in found[1].remedy


@pytest.mark.parametrize(("package", "present"), [("torch", "2.5.1"), ("nicegui", "2.24.0"), ("nicegui", "4.0.0")])
def test_package_of_another_version_is_a_warning(installed, package, present):
    installed[package] = present
    (found,) = [one for one in environment.package_findings() if one.level is Level.WARN]
    assert f"{package} {present} instead of" in found.text


def test_module_without_metadata_counts_as_installed(installed, monkeypatch):
    del installed["numpy"]
    monkeypatch.setattr(environment, "is_installed", lambda module: module == "numpy")
    assert levels(environment.package_findings())["packages for the commands and the memory"] == "OK"


def test_two_opencv_packages_are_a_warning(installed):
    installed.update({"opencv-python": "4.12.0", "opencv-python-headless": "5.0.0"})
    assert levels(environment.package_findings())["opencv"] == "WARN"


def test_torchvision_of_another_torch_is_an_error(installed, monkeypatch):
    monkeypatch.setattr(environment, "requires", lambda _name: ["numpy", "torch==2.14.0"])
    installed["torchvision"] = "0.29.0"
    assert "torchvision" not in levels(environment.package_findings())
    installed["torch"] = "2.13.1"
    assert levels(environment.package_findings())["torchvision"] == "ERROR"


def test_unknown_requirements_are_a_warning(monkeypatch):
    monkeypatch.setattr(environment, "_requirements", list)
    assert levels(environment.package_findings()) == {"packages": "WARN"}


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (Answer({"name": "cv_bridge", "fallback_reason": ""}), "OK"),
        (Answer({"name": "rosbags-image", "fallback_reason": "cv_bridge is not installed"}), "OK"),
        (
            Answer({"name": "rosbags-image", "fallback_reason": "the installed cv_bridge does not work (NumPy 2)"}),
            "WARN",
        ),
    ],
)
def test_image_conversion(answer, level):
    assert levels(environment.converter_findings(answer)) == {"image conversion": level}


def test_image_conversion_that_crashes_is_an_error():
    (found,) = environment.converter_findings(Answer(error="the process died of SIGSEGV"))
    assert found.level is Level.ERROR


# --- GPU ------------------------------------------------------------------------------------------------------------


def test_gpu_is_ok():
    found = compute.compute_findings(Answer(TORCH), "auto")
    assert levels(found) == {"torch": "OK", "gpu": "OK"}
    assert "NVIDIA X, 8.0 GB of 12.0 GB free" in found[1].line


def test_gpu_without_bfloat16_is_a_warning():
    without = {**TORCH, "devices": [{**GPU, "bfloat16": False}]}
    assert levels(compute.compute_findings(Answer(without), "auto"))["gpu"] == "WARN"


def test_gpu_on_which_torch_cannot_compute_is_an_error():
    broken = {**TORCH, "devices": [{**GPU, "error": "no kernel image is available for execution on the device"}]}
    assert levels(compute.compute_findings(Answer(broken), "auto"))["gpu"] == "ERROR"


def test_torch_that_cannot_be_imported_is_an_error():
    (found,) = compute.compute_findings(Answer(error="torch is not installed: pip install"), "auto")
    assert found.level is Level.ERROR


@pytest.mark.parametrize(("device", "level"), [("auto", "WARN"), ("cuda:0", "ERROR"), ("cpu", "OK")])
def test_missing_gpu(monkeypatch, device, level):
    monkeypatch.setattr(compute, "_DEVICE_FILES", ())
    without = {**TORCH, "devices": []}
    assert levels(compute.compute_findings(Answer(without), device))["gpu"] == level


def test_gpu_that_torch_cannot_use_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(compute, "_DEVICE_FILES", (str(tmp_path / "nvidiactl"),))
    unusable = {**TORCH, "devices": [], "warnings": ["The NVIDIA driver on your system is too old"]}
    _, found = compute.compute_findings(Answer(unusable), "auto")
    assert found.level is Level.ERROR
    assert "too old" in found.text
    assert "matches the driver" in found.remedy


# --- Middleware -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "subject", "level"),
    [
        ({}, "ROS_DOMAIN_ID", "OK"),
        ({"ROS_DOMAIN_ID": "42"}, "ROS_DOMAIN_ID", "OK"),
        ({"ROS_DOMAIN_ID": "150"}, "ROS_DOMAIN_ID", "WARN"),
        ({"ROS_DOMAIN_ID": "233"}, "ROS_DOMAIN_ID", "ERROR"),
        ({"ROS_DOMAIN_ID": "robot"}, "ROS_DOMAIN_ID", "ERROR"),
        ({"ROS_DOMAIN_ID": "-1"}, "ROS_DOMAIN_ID", "ERROR"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, "discovery", "OK"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCAL"}, "discovery", "ERROR"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "discovery", "ERROR"),
        ({"ROS_LOCALHOST_ONLY": "true"}, "discovery", "ERROR"),
        ({"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, "discovery", "WARN"),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "/no/such.xml"}, "middleware profile", "ERROR"),
        ({"CYCLONEDDS_URI": "file:///no/such.xml"}, "middleware profile", "ERROR"),
        ({"CYCLONEDDS_URI": "file:///etc/os-release"}, "middleware profile", "OK"),
    ],
)
def test_ros_variables(variables, subject, level):
    assert levels(middleware.variable_findings(variables))[subject] == level


@pytest.mark.parametrize(("peers", "count"), [("", 0), ("127.0.0.1; localhost", 0), ("127.0.0.1;no such host", 1)])
def test_static_peers_without_an_address_are_an_error(peers, count):
    found = middleware.peer_findings({"ROS_STATIC_PEERS": peers})
    assert [one.level for one in found] == [Level.ERROR] * count


def test_shared_memory_is_ok(tmp_path):
    assert levels(middleware.shared_memory_findings(tmp_path)) == {"shared memory": "OK"}


def test_small_shared_memory_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(middleware, "_MIN_SHARED_BYTES", 10**18)
    assert levels(middleware.shared_memory_findings(tmp_path)) == {"shared memory": "WARN"}


def test_missing_shared_memory_is_a_warning(tmp_path):
    assert levels(middleware.shared_memory_findings(tmp_path / "none")) == {"shared memory": "WARN"}


def test_shared_memory_without_permission_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(middleware.os, "access", lambda *_: False)
    assert levels(middleware.shared_memory_findings(tmp_path)) == {"shared memory": "WARN"}


def test_segments_of_dead_processes_are_counted(tmp_path):
    for name in ("fastdds_aa_el", "fastdds_bb_el", "fastdds_cc"):
        (tmp_path / name).touch()
    with (tmp_path / "fastdds_aa_el").open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        _, found = middleware.shared_memory_findings(tmp_path)
    assert found.level is Level.WARN
    assert "1 segments of dead processes" in found.text


def test_segments_of_another_user_are_a_warning(tmp_path, monkeypatch):
    (tmp_path / "fastdds_aa_el").touch()
    monkeypatch.setattr(middleware.os, "getuid", lambda: 4242)
    _, found = middleware.shared_memory_findings(tmp_path)
    assert found.level is Level.WARN
    assert "one user" in found.remedy


@pytest.mark.parametrize(
    ("size", "is_remote", "level"), [(212_992, True, "WARN"), (212_992, False, "OK"), (8_388_608, True, "OK")]
)
def test_small_socket_buffers_are_a_warning_for_a_camera_of_another_machine(tmp_path, size, is_remote, level):
    file = tmp_path / "rmem_max"
    file.write_text(f"{size}\n")
    topics = [Topic("/image", (RAW_TYPE,), is_remote=is_remote)]
    assert levels(middleware.socket_findings(topics, file)) == {"socket buffers": level}


def test_socket_buffers_that_a_container_hides_are_no_error(tmp_path):
    assert levels(middleware.socket_findings((), tmp_path / "rmem_max")) == {"socket buffers": "OK"}


def test_blocked_multicast_is_a_warning(monkeypatch):
    def fail():
        raise OSError("Network is unreachable")

    monkeypatch.setattr(middleware, "_send_multicast", fail)
    assert levels(middleware.multicast_findings({})) == {"multicast": "WARN"}
    assert levels(middleware.multicast_findings({"ROS_LOCALHOST_ONLY": "1"})) == {"multicast": "OK"}


EXCHANGED = {
    "bytes": 6_220_800,
    "matched": True,
    "reliable_sec": 0.05,
    "best_effort_sent": 5,
    "best_effort_received": 5,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"message exchange": "OK", "best effort": "OK"}),
        ({"best_effort_received": 2}, {"message exchange": "OK", "best effort": "WARN"}),
        ({"reliable_sec": 1.7}, {"message exchange": "WARN", "best effort": "OK"}),
        ({"reliable_sec": None}, {"message exchange": "ERROR"}),
        ({"matched": False}, {"message exchange": "ERROR"}),
    ],
)
def test_message_exchange(changes, expected):
    assert levels(middleware.delivery_findings(Answer({**EXCHANGED, **changes}), is_busy=False)) == expected


def test_message_that_is_lost_on_a_busy_machine_is_a_warning():
    for lost in (Answer({**EXCHANGED, "reliable_sec": None}), Answer(error="no result within 12 s")):
        assert levels(middleware.delivery_findings(lost, is_busy=True)) == {"message exchange": "WARN"}
    # a process that ended is a fault of the middleware
    ended = Answer(error="ended with code 6", has_ended=True)
    assert levels(middleware.delivery_findings(ended, is_busy=True)) == {"message exchange": "ERROR"}


# --- Clock ----------------------------------------------------------------------------------------------------------


def test_present_clock_is_ok(monkeypatch):
    monkeypatch.setattr(clocks, "_ntp_state", lambda: "yes")
    assert levels(clocks.system_clock_findings()) == {"system clock": "OK"}


@pytest.mark.parametrize(("now_sec", "level"), [(30.0, "ERROR"), (1_735_000_000.0, "WARN"), (5e9, "ERROR")])
def test_clock_that_was_never_set_is_reported(now_sec, level):
    assert levels(clocks.system_clock_findings(now_sec)) == {"system clock": level}


def test_clock_that_is_not_synchronised_is_a_warning(monkeypatch):
    monkeypatch.setattr(clocks, "_ntp_state", lambda: "no")
    assert levels(clocks.system_clock_findings()) == {"system clock": "WARN"}


# --- Disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def on_a_disk(monkeypatch, tmp_path_factory):
    """The folders of the tests may be in memory."""
    mounts = tmp_path_factory.mktemp("mounts") / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(disk, "_MOUNTS", mounts)


def key_frames(folder, **parameters):
    found = disk.disk_findings({"persistence.folder": str(folder), **parameters}, {"ROS_LOG_DIR": "/tmp"})
    return levels(found)["key-frame files"]


def test_writable_folder_is_ok(tmp_path):
    assert key_frames(tmp_path) == "OK"


def test_missing_folder_is_an_error(tmp_path):
    assert key_frames(tmp_path / "none") == "ERROR"


def test_folder_without_permission_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.os, "access", lambda *_: False)
    assert key_frames(tmp_path) == "ERROR"


@pytest.mark.parametrize("node_runs", [True, False])
def test_folder_of_the_nodes_user_is_a_warning_for_another_user(tmp_path, monkeypatch, node_runs):
    # given a node of the user who runs this test, or none, and a doctor of another user
    process = tmp_path / "123"
    process.mkdir()
    program = "/ws/lib/delayed_vlm_ros/scene_memory" if node_runs else "other"
    (process / "cmdline").write_text(f"/usr/bin/python3\0{program}\0--ros-args\0")
    monkeypatch.setattr(disk, "_PROCESSES", tmp_path)
    monkeypatch.setattr(disk.os, "access", lambda *_: False)
    user = disk.os.geteuid()
    monkeypatch.setattr(disk.os, "geteuid", lambda: user + 1)
    # then
    found, _ = disk.disk_findings({"persistence.folder": str(tmp_path)}, {"ROS_LOG_DIR": "/tmp"})
    assert found.level is Level.WARN
    assert "run doctor as the node's user" in found.remedy


def test_folder_of_another_user_is_an_error_for_the_nodes_user(tmp_path, monkeypatch):
    # given a node that runs as the doctor's user, and a folder of root
    (tmp_path / "123").mkdir()
    (tmp_path / "123" / "cmdline").write_text("/usr/bin/python3\0/ws/scene_memory\0")
    monkeypatch.setattr(disk, "_PROCESSES", tmp_path)
    monkeypatch.setattr(disk.os, "access", lambda *_: False)
    assert key_frames("/") == "ERROR"


def test_folder_in_a_private_folder_is_a_warning(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk.Path, "stat", refuse)
    assert disk._writable("key-frame files", Path("/var/lib/private/x"), 0, "").level is Level.WARN


def test_read_only_file_system_is_an_error():
    read_only = next(
        (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if _is_read_only(line)), ""
    )
    if not read_only:
        pytest.skip("no read-only file system on this machine")
    assert key_frames(read_only) == "ERROR"


def _is_read_only(line):
    folder, options = line.split()[1], line.split()[3].split(",")
    return "ro" in options and Path(folder).is_dir()


def test_folder_in_memory_is_a_warning(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    monkeypatch.setattr(disk, "_MOUNTS", mounts)
    assert key_frames(tmp_path) == "WARN"
    assert key_frames(tmp_path.parent) == "OK"


def test_disk_without_inodes_is_an_error(tmp_path, monkeypatch):
    state = types.SimpleNamespace(f_bavail=10**9, f_frsize=4096, f_flag=0, f_files=10**6, f_favail=0)
    monkeypatch.setattr(disk.os, "statvfs", lambda _folder: state)
    assert key_frames(tmp_path) == "ERROR"


def test_full_disk_is_an_error(tmp_path):
    assert key_frames(tmp_path, **{"memory.star.size": 2000, "memory.max_pixels": 10**12}) == "ERROR"


def test_log_folder_is_that_of_ros():
    assert log_folder({"ROS_LOG_DIR": "/a", "ROS_HOME": "/b", "HOME": "/c"}) == Path("/a")
    assert log_folder({"ROS_HOME": "/b", "HOME": "/c"}) == Path("/b/log")
    assert log_folder({"HOME": "/c"}) == Path("/c/.ros/log")


def test_no_log_folder_is_a_warning():
    assert levels(disk.disk_findings(None, {})) == {"key-frame files": "OK", "log files": "WARN"}


def test_log_folder_that_does_not_exist_yet_is_ok(tmp_path):
    found = disk.disk_findings(None, {"ROS_HOME": str(tmp_path)})
    assert levels(found) == {"key-frame files": "OK", "log files": "OK"}


# --- Page -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def serve():
    """Return a function that serves a response with a status and a body, and returns the port."""
    servers = []

    def start(status, body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def page_level(parameters, **variables):
    return levels(page.page_findings(parameters, variables))


@pytest.mark.parametrize(
    ("status", "body", "level"), [(200, b"<title>Scene memory</title>", "OK"), (200, b"nginx", "WARN")]
)
def test_page_or_another_program_answers(serve, status, body, level):
    assert page_level({"address": "0.0.0.0", "port": serve(status, body)})["page"] == level


def test_another_program_on_the_default_port_is_ok_without_a_page(serve, monkeypatch):
    monkeypatch.setattr(page, "_PORT", serve(200, b"nginx"))
    found, *_ = page.page_findings(None, {})
    assert found.level is Level.OK
    assert "another program serves" in found.text


def test_page_that_asks_for_a_token_answers(serve):
    assert page_level({"address": "::", "port": 0}).get("page") is None
    port = serve(401, b"<title>Scene memory</title>")
    assert page_level({"address": "127.0.0.1", "port": port})["page"] == "OK"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_free_port_is_ok_without_a_page_and_an_error_with_one(monkeypatch):
    port = free_port()
    assert page_level({"port": port})["page"] == "ERROR"
    monkeypatch.setattr(page, "_PORT", port)
    assert page_level(None)["page"] == "OK"


def test_program_without_http_is_a_warning():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            connection, _ = server.accept()
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert page_level({"port": port})["page"] == "WARN"


def test_token_is_checked_and_never_shown():
    for token, level in (("planted-0123456789abcdef", "OK"), ("short", "ERROR")):
        found = page.page_findings(None, {TOKEN_VARIABLE: token})
        assert levels(found)["page token"] == level
        assert not any(token in one.line for one in found)


def test_missing_files_of_the_page_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "data_folder", lambda *_: tmp_path)
    assert page_level(None)["page files"] == "ERROR"
