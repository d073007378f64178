"""Precompute and idle unloading, over DDS."""

from diagnostic_msgs.msg import DiagnosticStatus


def test_question_after_precompute_encodes_nothing(start):
    # given
    _, client = start(fake=False, memory__sample_fps=20.0, precompute__mode="full", precompute__quiet_sec=0.0)
    client.wait_until_ready()
    client.connect_images()
    client.reset()
    client.show_images(6)
    assert client.ask(max_new_tokens=4).success
    encoded = client.wait_for_stats(lambda stats: stats.asks_served == 1).feature_bytes
    client.reset()
    # when images arrive and no question is asked
    client.show_images(6)
    stats = client.wait_for_stats(lambda stats: stats.feature_bytes == encoded and stats.kv_bytes > 0)
    # then a question finds all of them encoded
    assert stats.asks_served == 1
    response = client.ask(max_new_tokens=4)
    assert response.success, response.error_msg
    assert response.metrics.frames_encoded == 0
    assert response.metrics.encoding_latency == 0.0
    assert response.metrics.kv_tokens_reused > 0


def test_idle_model_is_unloaded_and_loaded_again_for_the_next_question(start):
    # given
    _, client = start(fake=False, memory__sample_fps=20.0, model__unload_after_idle_sec=1.0)
    client.wait_until_ready()
    client.show_images(4)
    assert client.ask(max_new_tokens=4).success
    # when
    stats = client.wait_for_stats(lambda stats: stats.model_state == "unloaded")
    # then the device is free, the frames are kept and the diagnostics are OK
    assert (stats.feature_bytes, stats.kv_bytes) == (0, 0)
    assert stats.unique_frames >= 4
    status = client.wait_for_status("model", lambda status: status.message.startswith("unloaded"))
    assert status.level == DiagnosticStatus.OK
    assert "unloaded" in status.message
    response = client.ask(max_new_tokens=4)
    assert response.success, response.error_msg
    assert response.metrics.frames_encoded > 0
