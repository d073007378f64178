"""A synthetic room with coloured objects: pictures of it at any time, and the truth about them.

    scene = Scene.from_seed(7)
    picture = render(scene, time_sec=12.5, height=480, width=640)
    truth = visible_objects(scene, time_sec=12.5)

Both are pure functions of the scene and the time, so any frame rate, any order and any number of readers see the same
room. Needs numpy and OpenCV only.
"""

from delayed_vlm_ros.simulation.render import render
from delayed_vlm_ros.simulation.scene import Scene, VisibleObject, visible_objects

__all__ = ["Scene", "VisibleObject", "render", "visible_objects"]
