"""``delayed-vlm server-check``: what it says about a model server, and what to set."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import chat_server
import pytest
from chat_server import MODEL, ChatServer, Fault
from command_line import run_here

from delayed_vlm_ros.doctor import diagnosis, environment, model
from delayed_vlm_ros.doctor.running import Answer

pytest.importorskip("openai", reason="the extra 'remote' is not installed")

COMMAND = Path(sys.executable).with_name("delayed-vlm")


@pytest.fixture
def serve():
    """Return a function that starts a server."""
    started = []

    def start(**settings):
        started.append(ChatServer(**settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def check(tmp_path):
    """Return a function that checks a server and returns exit code, findings by subject, and the whole object."""

    def run(server, *options, model=MODEL):
        done = run_here(
            "server-check", f"http://127.0.0.1:{server.port}/v1#{model}", "--json", *options, cwd=tmp_path, columns=200
        )
        found = json.loads(done.stdout)
        lines = {one["subject"]: f"{one['level']} {one['finding']}: {one['remedy']}" for one in found["findings"]}
        return done.returncode, lines, found

    return run


def test_server_with_times_as_text_needs_no_change(serve, check):
    code, lines, found = check(serve())
    assert (code, found["success"]) == (0, True)
    assert {line.partition(" ")[0] for line in lines.values()} == {"OK"}, lines
    assert (found["server"], found["model"], found["encoding"]) == ("vLLM 0.33.0", MODEL, "timed_images")
    assert found["models"] == {MODEL: 4096}
    assert "a context of 4096 tokens" in lines["model"]
    assert found["frame_multiple"] == 32
    first, again = found["questions"]
    assert again["bytes_sent"] < first["bytes_sent"] / 20
    assert found["parameters"]["model"]["name"].endswith(f"/v1#{MODEL}")


def test_wrong_frame_multiple_is_reported_with_the_right_one(serve, check, monkeypatch):
    monkeypatch.setattr(chat_server, "CELL", 28)
    code, lines, found = check(serve())
    assert code == 0
    assert lines["remote.frame_multiple"].startswith("WARN 32 does not fit")
    assert "set it to 28" in lines["remote.frame_multiple"]
    assert found["parameters"]["remote"]["frame_multiple"] == 28
    assert check(serve(), "--frame-multiple", 28)[1]["remote.frame_multiple"].startswith("OK 28 fits")


def test_server_that_makes_images_smaller_is_reported_with_a_size_that_fits(serve, check, monkeypatch):
    monkeypatch.setattr(chat_server, "_tokens_of", lambda data: 24 * ((len(data.split(",")) + 1) // 2))
    code, lines, found = check(serve())
    assert code == 0
    assert "smaller, to 22 tokens" in lines["remote.frame_multiple"]  # this server writes no tokens around an image
    assert found["parameters"]["memory"]["max_pixels"] == 22 * 32 * 32


def test_server_without_video_times_gets_images_and_the_flag_that_allows_more(serve, check):
    code, lines, found = check(serve(trusts_kwargs=False, writes_times=False))
    assert (code, found["encoding"], found["accepts_video"]) == (0, "images", False)
    assert "--trust-request-mm-kwargs" in lines["encoding"]
    assert lines["times"].startswith("WARN")


def test_one_interval_for_all_frames_is_a_warning(serve, check):
    _, lines, found = check(serve(writes_times=False))
    assert (found["encoding"], found["writes_times"]) == ("video", False)
    assert lines["times"].startswith("WARN one interval")


def test_times_are_found_in_a_prompt_with_spaces_between_tokens(serve, check, monkeypatch):
    monkeypatch.setattr(chat_server, "TIME_TEXT", "< 1. 2 seconds >")
    assert check(serve())[2]["writes_times"] is True
    monkeypatch.setattr(chat_server, "TIME_TEXT", "< 2. 4 seconds >")  # not the mean time of the pair
    assert check(serve())[2]["writes_times"] is False


def test_server_without_probabilities_cannot_serve_watches(serve, check):
    server = serve()
    server.always(Fault.NO_LOGPROBS)
    _, lines, found = check(server)
    assert found["reports_scores"] is False
    assert lines["watches"].startswith("WARN not possible")


def test_server_without_usage_leaves_tokens_unknown(serve, check):
    server = serve()
    server.always(Fault.NO_USAGE)
    code, lines, found = check(server)
    assert (code, found["frame_multiple"], found["reports_cached_tokens"]) == (0, None, False)
    assert "does not report tokens" in lines["remote.frame_multiple"]
    assert "--enable-prompt-tokens-details" in lines["cached tokens"]
    assert lines["frames by name"].startswith("WARN")  # a name that is ignored would be an answer about nothing


def test_wrong_model_is_an_error_with_the_names_that_the_server_lists(serve, check):
    code, lines, found = check(serve(), model="nope")
    assert (code, found["success"], found["parameters"]) == (1, False, {})
    assert f"use one that the server lists: {MODEL}" in lines["model"]


def test_wrong_key_is_an_error_that_does_not_repeat_it(serve, check, monkeypatch):
    server = serve(api_key="right-key-1")
    monkeypatch.setenv("ROBOT_KEY", "wrong-key-2")
    code, lines, found = check(server, "--api-key-env", "ROBOT_KEY")
    assert code == 1
    assert "refuses access (HTTP 401)" in str(lines)
    assert "wrong-key-2" not in json.dumps(found)
    monkeypatch.setenv("ROBOT_KEY", "right-key-1")
    code, lines, found = check(server, "--api-key-env", "ROBOT_KEY")
    assert code == 0
    assert lines["connection"].startswith("WARN not encrypted")
    assert found["parameters"]["remote"]["api_key_env"] == "ROBOT_KEY"


def test_key_that_is_not_set_is_one_line(serve, tmp_path):
    done = run_here("server-check", f"http://127.0.0.1:{serve().port}/v1", "--api-key-env", "NO_SUCH", cwd=tmp_path)
    assert done.returncode == 1
    assert "NO_SUCH" in done.stderr
    assert done.stderr.count("\n") == 1


def test_address_without_v1_is_an_error_with_the_right_one(serve, tmp_path):
    server = serve()
    done = run_here("server-check", f"http://127.0.0.1:{server.port}#{MODEL}", cwd=tmp_path, columns=300)
    assert done.returncode == 1
    assert f"http://127.0.0.1:{server.port}/v1" in done.stdout


def test_installed_command_ends_with_an_error_for_a_server_that_is_away(serve, tmp_path):
    server = serve()
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    url = f"openai:http://127.0.0.1:{server.port}/v1"  # without a name: the only model
    done = run([COMMAND, "server-check", url])
    assert (done.returncode, "traceback" in done.stderr.lower()) == (0, False), done.stderr
    assert f"name: {url}#{MODEL}" in done.stdout
    server.kill()
    done = run([COMMAND, "server-check", url])
    assert done.returncode == 1
    assert f"cannot reach the model server 127.0.0.1:{server.port}" in done.stdout
    assert "parameter" not in done.stdout


def node_lines(server, **parameters):
    """Return what doctor says about the model of a node with a server, by subject."""
    address = f"openai:http://127.0.0.1:{server.port}/v1#{MODEL}"
    settings = model.settings_of({"model.name": address, **parameters})
    found = diagnosis._model_findings(settings, Answer(error="no torch"), 20.0, is_loaded=False)
    return {one.subject: one.line for one in found}


def test_doctor_checks_the_server_of_a_node_and_neither_torch_nor_checkpoint(serve):
    server = serve()
    lines = node_lines(server)
    assert set(lines) == {"server", "connection"}
    assert lines["server"].startswith("OK")
    assert server.chats == []  # a question would cost the model
    server.kill()
    assert node_lines(server)["server"].startswith("ERROR  server: cannot reach the model server")


def test_doctor_checks_the_fallback_model_of_a_node_too(serve):
    lines = node_lines(serve(), **{"remote.fallback": "demo"})
    assert set(lines) > {"server", "torch", "model", "memory plan"}


def test_doctor_names_a_key_that_this_shell_does_not_have(serve, monkeypatch):
    server = serve(api_key="right-key-1")
    lines = node_lines(server, **{"remote.api_key_env": "ROBOT_KEY"})
    assert lines["key"].startswith("WARN   key: the environment variable ROBOT_KEY")
    monkeypatch.setenv("ROBOT_KEY", "right-key-1")
    lines = node_lines(server, **{"remote.api_key_env": "ROBOT_KEY"})
    assert "key" not in lines
    assert lines["connection"].startswith("WARN   connection: not encrypted")
    assert "right-key-1" not in str(lines)


def test_node_with_a_server_needs_the_client_and_no_torch(monkeypatch):
    settings = model.settings_of({"model.name": "openai:http://server/v1", "remote.fallback": "none"})
    assert (settings.extras, settings.model) == (("remote",), "")
    both = model.settings_of({"model.name": "openai:http://server/v1", "remote.fallback": "local"})
    assert (both.extras, both.model) == (("vlm", "remote"), "auto")
    assert model.settings_of(None).extras == ("vlm",)
    monkeypatch.setattr(environment, "_version", lambda name: "" if name == "torch" else "999")
    levels = {one.subject: one.level.name for one in environment.package_findings(("remote",))}
    assert "packages for the model" not in levels
    assert "packages for a model on a server" in levels
    assert environment.package_findings()[1].level.name == "ERROR"  # torch is missing
