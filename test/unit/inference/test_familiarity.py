"""Images unlike the embedded model's world: detected from vision features, and answered with a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.familiarity import UNFAMILIAR_ANSWER, fit_familiar_images, load_familiar_images
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from lab.training.familiar_images import KINDS, features_of, render_pairs

VIDEOS = Path(__file__).parents[4] / "shared" / "videos"
ROOMS = int(os.environ.get("FAMILIAR_ROOMS", str(2 * len(KINDS))))
QUESTION = "What do you see?"


@pytest.fixture(scope="module")
def loaded():
    return load_model(resolve_checkpoint("demo"), device="cpu")


@pytest.fixture
def make_engine(loaded):
    """Return a function that returns an engine with the embedded model and images."""

    def make(images, **arguments):
        arguments = {"familiar_images": loaded.familiar_images, **arguments}
        engine = DelayedBatchInferenceEngine(loaded.model, loaded.processor, **arguments)
        for image in images:
            engine.add_frame(np.ascontiguousarray(image))
        return engine

    return make


@pytest.fixture
def unfamiliar(loaded):
    """Return a function that returns which pairs of images are unfamiliar."""

    def find(images):
        engine = DelayedBatchInferenceEngine(loaded.model, loaded.processor)
        return [not loaded.familiar_images.contain(pair) for pair in _tensors(features_of(engine, images))]

    return find


def _tensors(features):
    import torch  # noqa: PLC0415

    return torch.from_numpy(features)


def rooms(count):
    """Return pairs of images of held-out synthetic rooms."""
    return [image for pair in render_pairs(HELD_OUT_SEEDS[:count], first_time_sec=5.0) for image in pair]


def natural(seed, height=240, width=320):
    """Return an image with the spectrum of photos (amplitude 1/f) and with edges of objects in front of each other."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = np.inf
    shared, image = random.normal(size=(height, width)), np.empty((height, width, 3))
    for channel in range(3):
        spectrum = np.fft.fft2(shared + 0.3 * random.normal(size=(height, width))) / frequency
        texture = np.fft.ifft2(spectrum).real
        image[..., channel] = 120 + 50 * texture / texture.std()
    for _ in range(40):
        centre = (int(random.integers(width)), int(random.integers(height)))
        axes = (int(random.integers(8, 60)), int(random.integers(8, 60)))
        mask = cv2.ellipse(np.zeros((height, width), np.uint8), centre, axes, random.uniform(0, 180), 0, 360, 1, -1) > 0
        image[mask] = 0.6 * image[mask] + random.uniform(0, 110, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def video_frames(name, count=24):
    capture = cv2.VideoCapture(str(VIDEOS / name))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return [frames[index] for index in np.linspace(0, len(frames) - 1, count).astype(int)]


def test_no_held_out_room_is_unfamiliar(unfamiliar):
    """Set more rooms with ``FAMILIAR_ROOMS``."""
    found = unfamiliar(rooms(ROOMS))
    assert len(found) == ROOMS
    assert sum(found) == 0


def test_images_with_the_statistics_of_photos_are_unfamiliar(unfamiliar):
    found = unfamiliar([natural(seed) for seed in range(24)])
    assert np.mean(found) >= 0.95


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real videos in ../shared/videos are not here")
@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_real_videos_are_unfamiliar(unfamiliar, name):
    assert np.mean(unfamiliar(video_frames(name))) >= 0.95


# --- answers ---------------------------------------------------------------------------------------------------------


def test_unfamiliar_images_are_answered_with_a_sentence(make_engine, loaded, monkeypatch):
    # given
    engine = make_engine([natural(seed) for seed in range(4)])
    generated = []
    sound = loaded.model.generate
    monkeypatch.setattr(loaded.model, "generate", lambda **arguments: generated.append(1) or sound(**arguments))

    # when
    answers = [engine.ask(QUESTION) for _ in range(2)]

    # then the model is not asked, and the answer does not claim to be its own
    for answer, metrics in answers:
        assert answer == UNFAMILIAR_ANSWER
        assert (metrics.answer_tokens, metrics.exact, metrics.finish_reason) == (0, False, "stop")
        assert "2 of 2 pairs" in metrics.warnings[-1]
    assert engine.answer(AskRequest(QUESTION)).is_refused
    assert not generated
    assert answers[1][1].frames_encoded == 0


def test_synthetic_images_are_answered_as_without_the_check(make_engine):
    # given
    images = rooms(2)
    plain = make_engine(images, familiar_images=None).ask(QUESTION)

    # when
    answer, metrics = make_engine(images).ask(QUESTION)

    # then
    assert (answer, metrics.warnings, metrics.exact) == (plain[0], plain[1].warnings, True)
    assert not make_engine(images).answer(AskRequest(QUESTION)).is_refused


def test_some_unfamiliar_images_are_a_warning_and_may_be_left_out_by_time(make_engine):
    # given two synthetic pairs, then one of another kind, which leaves the memory later
    engine = make_engine([*rooms(2), natural(1), natural(2)], star_memory_size=0, stream_window_size=6)

    # when
    mixed = engine.ask(QUESTION)
    newest = engine.ask(QUESTION, last_sec=0.6)
    oldest = engine.ask(QUESTION, until=1.6)

    # then
    assert mixed[0] != UNFAMILIAR_ANSWER
    assert (mixed[1].exact, "1 of 3 pairs" in mixed[1].warnings[-1]) == (True, True)
    assert newest[0] == UNFAMILIAR_ANSWER
    assert oldest[0] != UNFAMILIAR_ANSWER
    assert oldest[1].warnings == ()


def test_still_unfamiliar_image_counts_in_each_of_its_pairs(make_engine):
    engine = make_engine([natural(1)] * 10, star_memory_size=0, stream_window_size=10)
    answer, metrics = engine.ask(QUESTION)
    assert answer == UNFAMILIAR_ANSWER
    assert "5 of 5 pairs" in metrics.warnings[-1]


def test_verdicts_survive_a_budget_that_drops_features_and_a_reset(make_engine):
    # given
    engine = make_engine([natural(seed) for seed in range(6)], memory_budget_mb=2.05)

    # then
    assert engine.ask(QUESTION)[0] == UNFAMILIAR_ANSWER
    assert engine.ask(QUESTION)[0] == UNFAMILIAR_ANSWER
    engine.reset()
    for image in rooms(1):
        engine.add_frame(image)
    assert engine.ask(QUESTION)[0] != UNFAMILIAR_ANSWER


def test_only_the_embedded_model_checks_images(loaded):
    assert loaded.familiar_images is not None
    folder = resolve_checkpoint("demo").path
    assert load_model(resolve_checkpoint(str(folder)), device="cpu").familiar_images is None


def test_statistics_survive_a_file(tmp_path, loaded):
    # given features of 128 dimensions, of which few vary
    features = np.random.default_rng(0).normal(size=(500, 128)) * np.linspace(3.0, 0.01, 128)

    # when
    fit_familiar_images(features).save(tmp_path / "statistics.npz")
    fitted = load_familiar_images(tmp_path / "statistics.npz")

    # then
    assert fitted.outside.shape == loaded.familiar_images.outside.shape == (48, 128)
    assert fitted.distance(_tensors(features[:20])) < 0.3
    assert fitted.distance(_tensors(np.random.default_rng(1).normal(size=(20, 128)))) > 0.4
