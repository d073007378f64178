"""pip packaging: the core and the ``delayed-vlm`` command, without ROS. ROS builds use CMakeLists.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"', (ROOT / "delayed_vlm_ros" / "__init__.py").read_text("utf-8"), re.MULTILINE
)
VISION_LANGUAGE = [
    *("torch", "torchvision", "transformers>=5.20", "accelerate", "qwen-vl-utils>=0.0.14"),
    *("huggingface_hub", "safetensors", "tokenizers"),
]

setup(
    name="delayed_vlm_ros",
    version=VERSION.group(1),
    description="Scene memory for camera robots: bounded Stream and Star memory, answered by a Qwen VL model on demand",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["delayed_vlm_ros", "delayed_vlm_ros.*"]),
    package_data={
        "delayed_vlm_ros": ["py.typed"],
        "delayed_vlm_ros.replay.report": ["report.css", "report.html.jinja"],
        "delayed_vlm_ros.demo": ["tiny_scene/*"],
        "delayed_vlm_ros.web": ["assets/*"],
    },
    data_files=[("share/delayed_vlm_ros/config", sorted(map(str, Path("config").iterdir())))],
    install_requires=[
        "numpy",
        "opencv-python-headless",
        "packaging",
        "pillow>=10.1",
        "pyyaml",
        "simplejpeg>=1.8",
        "typer>=0.12",
        "rich",
    ],
    extras_require={
        "vlm": VISION_LANGUAGE,
        "ros": ["rosbags-image"],
        "evaluation": [
            *("jinja2", "markupsafe", "matplotlib", "mcap", "rosbags>=0.11", "rosbags-image", "sacrebleu", "zstandard"),
        ],
        "ray": ["ray"],
        "web": ["fastapi", "nicegui>=3.4,<4", "uvicorn<1"],
        "remote": ["httpx2", "openai>=3"],
        "mcp": ["anyio", "mcp>=2.3,<3", "pydantic>=2.12", "starlette", "uvicorn<1"],
        "time": ["dateparser"],
        "scenes": ["scenedetect-headless>=0.7"],
        "docs": ["matplotlib", "mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1"],
        "test": ["hypothesis", "playwright", "pytest", "pytest-timeout", "pytest-xdist"],
        "lint": ["import-linter", "mypy", "pre-commit", "ruff"],
    },
    entry_points={"console_scripts": ["delayed-vlm = delayed_vlm_ros.__main__:main"]},
)
