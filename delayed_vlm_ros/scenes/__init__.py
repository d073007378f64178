"""A synthetic room with coloured objects and people: images at any time, ground truth, and questions.

    scene = Scene.from_seed(7)
    image = render(scene, time_sec=12.5, height=480, width=640)
    truth = visible_objects(scene, time_sec=12.5)

Both are pure functions of the scene and the time: every frame rate, order and number of readers sees the same room.
Seeds separate the data sets: the embedded model is trained on ``TRAINING_SEEDS``, tuned on ``TUNING_SEEDS`` and
evaluated on ``HELD_OUT_SEEDS``. The package requires only numpy and OpenCV.
"""

from delayed_vlm_ros.scenes.render import render
from delayed_vlm_ros.scenes.scene import CameraMotion, Episode, Scene, VisibleObject, visible_objects

TRAINING_SEEDS = range(1_000_000, 2_000_000)
TUNING_SEEDS = range(2_000_000, 2_010_000)
HELD_OUT_SEEDS = range(3_000_000, 3_010_000)

__all__ = [
    "HELD_OUT_SEEDS",
    "TRAINING_SEEDS",
    "TUNING_SEEDS",
    "CameraMotion",
    "Episode",
    "Scene",
    "VisibleObject",
    "render",
    "visible_objects",
]
