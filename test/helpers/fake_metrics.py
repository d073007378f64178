"""Metrics of fake engines."""

from delayed_vlm_ros.inference.metrics import AskMetrics


def metrics_of_scores(*warnings: str) -> AskMetrics:
    """Return the metrics of scores that cost nothing."""
    return AskMetrics(
        total_latency=0.0,
        encoding_latency=None,
        generation_latency=0.0,
        time_to_first_token=0.0,
        frames_encoded=0,
        frames_reused=0,
        visual_tokens=0,
        kv_cache_length=0,
        kv_tokens_reused=0,
        answer_tokens=0,
        video_grid_thw=(0, 0, 0),
        exact=True,
        warnings=warnings,
    )
