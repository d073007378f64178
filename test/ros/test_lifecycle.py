"""Lifecycle transitions, failures, parameters, and questions in every state, over DDS."""

from delayed_vlm_ros.srv import AskScene
from harness import values_of
from waiting import PATIENCE_SEC, wait_until

RESPONSE = AskScene.Response


def test_lifecycle_transitions_keep_or_drop_the_memory(start):
    _, client = start(autostart="false", memory__sample_fps=50.0)
    # unconfigured: diagnostics are published, questions are rejected
    assert client.state() == "unconfigured"
    status = client.wait_for_status("lifecycle", lambda status: "unconfigured" in status.message)
    assert status.level == b"\x01"
    rejected = client.ask()
    assert rejected.error_code == RESPONSE.MODEL_NOT_READY
    assert "unconfigured" in rejected.error_msg
    assert not client.reset().success
    # inactive: no images are taken
    assert client.transition("configure")
    client.publish(client.image())
    assert "activate" in client.ask().error_msg
    # active
    assert client.transition("activate")
    client.wait_until_active()
    client.show_images(4)
    kept = [frame.id for frame in client.ask().frames_used]
    # deactivated: the memory is kept
    assert client.transition("deactivate")
    client.wait_for_status("camera camera", lambda status: "not active" in status.message)
    stopped = client.wait_for_stats()
    assert stopped.unique_frames >= 4
    for _ in range(5):
        client.publish(client.image())
    assert client.ask().error_code == RESPONSE.MODEL_NOT_READY
    assert client.transition("activate")
    assert [frame.id for frame in client.ask().frames_used] == kept
    assert client.wait_for_stats().images_received == stopped.images_received
    # cleaned up: the memory is dropped
    assert client.transition("deactivate")
    assert client.transition("cleanup")
    client.wait_for_status("model", lambda status: values_of(status)["state"] == "unloaded")
    assert client.transition("configure")
    assert client.transition("activate")
    assert client.ask().error_code == RESPONSE.NO_FRAMES
    assert not client.transition("configure")
    assert client.state() == "active"


def test_missing_model_fails_configure_until_another_is_set(start):
    process, client = start(model__name="/no/such/model", memory__sample_fps=50.0)
    status = client.wait_for_status("lifecycle", lambda status: status.level == b"\x02")
    assert "/no/such/model" in status.message
    assert client.wait_for_status("model", lambda status: status.level == b"\x02").message == status.message
    assert "/no/such/model" in process.log
    assert "Traceback" not in process.log
    assert client.state() == "unconfigured"
    assert "/no/such/model" in client.ask().error_msg
    # when
    assert client.set_parameters({"model.name": "demo"})[0]
    assert client.transition("configure")
    assert client.transition("activate")
    # then
    client.wait_until_active()
    client.show_images(2)
    assert client.ask().success


def test_invalid_parameters_can_be_corrected_one_after_another(start):
    process, client = start(
        autostart="true", cameras="[7up!]", memory__star__size=-3, memory__sample_fps="'often'", ask__queue_size=2
    )
    status = client.wait_for_status("lifecycle", lambda status: status.level == b"\x02")
    assert "memory.star.size" in status.message
    assert "-3" in status.message
    assert client.set_parameters({"memory.star.size": 4})[0]
    assert not client.transition("configure")
    client.wait_for_status("lifecycle", lambda status: "memory.sample_fps" in status.message)
    assert client.set_parameters({"memory.sample_fps": 5})[0]
    assert not client.transition("configure")
    client.wait_for_status("lifecycle", lambda status: "'7up!'" in status.message)
    assert client.set_parameters({"cameras": ["front"]})[0]
    assert client.transition("configure")
    assert client.transition("activate")
    client.wait_for_status("camera front")
    assert process.alive


def test_parameters_change_only_when_allowed(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_ready()
    done, reason = client.set_parameters({"memory.star.size": 8})
    assert not done
    assert "memory.star.size" in reason
    done, reason = client.set_parameters({"ask.timeout_sec": -1.0})
    assert not done
    done, reason = client.set_parameters({"ask.max_question_characters": "many"})
    assert not done
    assert "ask.max_question_characters" in reason
    done, reason = client.set_parameters({"ask.timeout_sec": 0.2})
    assert done, reason
    client.show_images(2)
    assert client.ask("work 600", timeout_sec=0.0).error_code == RESPONSE.TIMEOUT


def test_memory_fills_and_questions_wait_while_the_model_loads(start, tmp_path):
    loaded = tmp_path / "loaded"
    _, client = start(memory__sample_fps=50.0, environment={"FAKE_LOAD_UNTIL": str(loaded)})
    client.wait_until_active()
    client.show_images(2)
    assert client.wait_for_stats().unique_frames > 0
    assert client.wait_for_node_stats().model_state == "loading"
    assert client.wait_for_status("model").level == b"\x01"
    too_early = client.ask(timeout_sec=0.2)
    assert too_early.error_code == RESPONSE.MODEL_NOT_READY
    assert "loading" in too_early.error_msg
    future = client.start_ask()
    client.wait_for_node_stats(lambda stats: stats.questions_waiting == 1)
    assert client.transition("deactivate")
    assert client.transition("activate")
    assert not future.done()
    loaded.touch()
    wait_until(future.done, "the answer")
    assert future.result().success


def test_load_failure_is_reported_until_the_model_loads(start, tmp_path):
    gone = tmp_path / "gone"
    gone.touch()
    _, client = start(memory__sample_fps=50.0, environment={"FAKE_LOAD_FAILS": str(gone)})
    client.wait_until_active()
    client.show_images(2)
    response = client.ask()
    assert response.error_code == RESPONSE.MODEL_NOT_READY
    assert "planted by the test" in response.error_msg
    status = client.wait_for_status("model", lambda status: status.level == b"\x02")
    assert "planted by the test" in status.message
    # when the cause is removed
    gone.unlink()
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert client.transition(transition)
    # then
    client.show_images(2)
    assert client.ask().success
    assert values_of(client.wait_for_status("model"))["state"] == "ready"


def test_full_queue_rejects_questions_and_delays_nothing_else(start):
    _, client = start(memory__sample_fps=50.0, ask__queue_size=2)
    client.wait_until_active()
    client.show_images(2)
    # when one question runs, two wait and the others exceed the queue
    futures = [client.start_ask("work 600", timeout_sec=2 * PATIENCE_SEC) for _ in range(6)]
    # then those are rejected while the first one runs
    wait_until(lambda: sum(future.done() for future in futures) == 3, "three rejections")
    rejected = [future.result() for future in futures if future.done()]
    assert all(response.error_code == RESPONSE.BUSY for response in rejected)
    # and lifecycle, images and reports do not wait for them
    assert client.state() == "active"
    client.show_images(3)
    client.wait_for_status("questions", lambda status: status.level == b"\x01")
    # and cleaning up ends them
    assert client.transition("deactivate")
    assert client.transition("cleanup")
    wait_until(lambda: all(future.done() for future in futures), "the end of all questions")
    codes = sorted(future.result().error_code for future in futures)
    assert codes == sorted([RESPONSE.BUSY, RESPONSE.CANCELLED] * 3)


def test_nodes_in_two_namespaces_are_independent(start):
    _, one = start(memory__sample_fps=50.0)
    _, other = start(memory__sample_fps=50.0)
    one.wait_until_active()
    other.wait_until_active()
    one.show_images(3)
    assert one.ask().success
    assert other.ask().error_code == RESPONSE.NO_FRAMES
    one.wait_for_node_stats(lambda stats: stats.questions_answered == 1)
    assert other.wait_for_node_stats(lambda stats: stats.questions_failed == 1).questions_answered == 0
