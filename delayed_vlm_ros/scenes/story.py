"""The demo camera's story: 32 s in which objects come and go, with questions and correct answers.

A person carries a red box away early on, a blue ball rolls in and out, and a person brings a yellow cylinder. A white
cone stays. At the end of the story, box and ball have left the Stream window; only Star memory still holds them.
"""

from __future__ import annotations

import math

from delayed_vlm_ros.scenes.questions import SceneQuestion
from delayed_vlm_ros.scenes.scene import Episode, Scene

STORY_SEC = 32.0
_SEED = 1
_EPISODES = (
    Episode(0, 0.0, math.inf, "white", "cone", home=0.5),
    Episode(2, 0.0, 9.0, "red", "box", home=0.12, departure="carried", side=-1.0, travel_sec=2.0),
    Episode(1, 10.0, 18.0, "blue", "ball", 0.69, "shift", "rolling", "rolling", target=0.31, side=1.0, travel_sec=1.5),
    Episode(3, 19.0, math.inf, "yellow", "cylinder", home=0.88, arrival="carried", side=1.0, travel_sec=2.5),
)
STORY_QUESTIONS = (
    SceneQuestion("side", "What is on the right?", "a yellow cylinder"),
    SceneQuestion("how_many", "How many objects are there?", "two"),
    SceneQuestion("at_start", "What was on the left at the start?", "a red box"),
    SceneQuestion("was_there", "Was there a blue ball earlier?", "yes"),
    SceneQuestion("before", "Did the red box come before the blue ball?", "yes"),
    SceneQuestion("appeared_last", "What appeared last?", "a yellow cylinder"),
)


def story_scene() -> Scene:
    """Return the scene of the story."""
    return Scene.from_script(_SEED, _EPISODES)
