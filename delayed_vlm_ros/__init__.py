"""Scene memory for camera robots: keep a little of everything seen, spend the GPU only when somebody asks.

Importing the package is light: it pulls in neither torch nor ROS. The parts are
``delayed_vlm_ros.memory`` (which frames to keep), ``delayed_vlm_ros.vlm`` (what a model says about them) and
``delayed_vlm_ros.nodes`` (both behind ROS 2).
"""

import pkgutil

# The generated interfaces (delayed_vlm_ros.msg, .srv, .action) are installed beside these modules. When Python
# starts in the repository's root, the source folder shadows the installed package; this joins the two.
__path__ = pkgutil.extend_path(__path__, __name__)

__version__ = "0.1.0"
