"""Precompute and idle unloading, over DDS."""

import itertools

from diagnostic_msgs.msg import DiagnosticStatus
from harness import nanoseconds
from waiting import wait_until


def test_question_after_precompute_encodes_nothing(start):
    # given
    _, client = start(fake=False, memory__sample_fps=20.0, precompute__mode="full", precompute__quiet_sec=0.0)
    client.wait_until_ready()
    client.connect_images()
    reports = itertools.count(1)

    # when images arrive and no question is asked; on a busy machine, for longer each time
    def find_all_encoded():
        client.reset()
        client.show_images(6)
        for _ in range(next(reports)):
            stats = client.wait_for_stats()
        response = client.ask(max_new_tokens=4)
        assert response.success, response.error_msg
        return response.metrics.frames_encoded == 0 and (response, stats)

    response, stats = wait_until(find_all_encoded, "a question about frames that are all encoded")
    # then
    assert stats.feature_bytes > 0
    assert stats.kv_bytes > 0
    assert response.metrics.encoding_latency == 0.0
    assert response.metrics.kv_tokens_reused > 0


def test_idle_model_is_unloaded_and_loaded_again_for_the_next_question(start):
    # given
    _, client = start(fake=False, memory__sample_fps=20.0, model__unload_after_idle_sec=1.0)
    client.wait_until_active()  # the model may be loaded and unloaded before the first report arrives
    client.show_images(4)
    assert client.ask(max_new_tokens=4).success
    # when
    node = client.wait_for_node_stats(lambda stats: stats.model_state == "unloaded")
    stats = client.wait_for_stats(since_ns=nanoseconds(node.header.stamp))
    # then the device is free, the frames are kept and the diagnostics are OK
    assert (stats.feature_bytes, stats.kv_bytes) == (0, 0)
    assert stats.unique_frames >= 4
    status = client.wait_for_status("model", lambda status: status.message.startswith("unloaded"))
    assert status.level == DiagnosticStatus.OK
    assert "unloaded" in status.message
    response = client.ask(max_new_tokens=4)
    assert response.success, response.error_msg
    assert response.metrics.frames_encoded > 0
