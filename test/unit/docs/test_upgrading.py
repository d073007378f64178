"""docs/upgrading.md: new names exist, old ones do not, and the parameters of 0.1.0 are all there."""

import importlib.util
import re
from pathlib import Path

import pytest

from delayed_vlm_ros import DelayedBatchInferenceEngine, SmartFrameManager

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")

# The parameters of the node scene_memory in 0.1.0 with their defaults, from its docs/parameters.md.
PARAMETERS = """
autostart true, cameras [camera], image_transport raw, image_max_pixels 100000000, memory.star.size 20,
memory.stream.size 20, memory.importance_threshold 0.6, memory.sample_fps 2.0, memory.max_pixels 200704,
memory.on_time_jump auto, memory.eviction_chunk -1, memory.marks.max -1, memory.budget_mb 0.0, persistence.folder ,
persistence.period_sec 30.0, pose.limit_sec 0.5, precompute.mode off, precompute.quiet_sec 0.2, model.name auto,
model.device auto, model.dtype auto, model.attention auto, model.allow_download false, model.canonical true,
model.features_on_host false, model.unload_after_idle_sec 0.0, ask.queue_size 8, ask.timeout_sec 60.0,
ask.max_new_tokens 128, ask.max_new_tokens_limit 4096, ask.max_question_characters 2000,
diagnostics.stale_after_sec 1.0
"""
CHANGED_DEFAULTS = {"memory.star.size": "30", "memory.stream.size": "10"}


def rows(section, number=0):
    """Return the cells of a table of a section."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [tuple(cell.strip() for cell in line.split(" | ")) for line in tables[number].splitlines()[2:]]


def names(text):
    return re.findall(r"`([a-z_]+)`", text)


def fields(name):
    """Return the fields of an interface, of all of its parts."""
    (file,) = [file for kind in ("msg", "srv") if (file := ROOT / kind / f"{name}.{kind}").exists()]
    return set(re.findall(r"^[\w/\[\]]+ (\w+)\s*(?:#|$)", file.read_text(encoding="utf-8"), re.MULTILINE))


def test_fields_that_were_renamed_or_moved_are_gone_and_the_new_ones_exist():
    checked = 0
    for old, new in rows("Messages, services and the action"):
        interface = re.match(r"\| `(\w+)`", old)[1]
        home = "NodeStats" if "NodeStats" in new else interface
        for name in names(old):
            if name not in ("frames_used", "camera"):
                assert name not in fields(interface), f"{interface}.{name} still exists"
                checked += 1
        assert set(names(new.split("; a client")[0])) <= fields(home), f"{home} lacks a field of '{new}'"
    assert checked == 13


def test_modules_that_moved_are_gone_and_the_new_ones_exist():
    table = rows("Python")
    assert len(table) == 11
    for old, new in table:
        for module in re.findall(r"`([\w.]+)`", new):
            assert importlib.util.find_spec(module), f"{module} does not exist"
        for module in re.findall(r"`([\w.]+)`", old):
            parent, _, name = module.rpartition(".")
            folder = ROOT / parent.replace(".", "/") / name
            assert not (folder / "__init__.py").exists()
            assert not folder.with_suffix(".py").exists()


def test_methods_that_were_renamed_exist():
    for old, new in rows("Python", 1):
        owner, _, method = re.match(r"\| `(\w+)\.?(\w*)", old)[0][3:].partition(".")
        if method:
            cls = {"DelayedBatchInferenceEngine": DelayedBatchInferenceEngine, "SmartFrameManager": SmartFrameManager}
            assert not hasattr(cls[owner], method)
            assert hasattr(cls[owner], names(new)[0])


def test_parameters_of_the_last_version_keep_their_names_and_defaults():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8").split("## demo_camera")[0]
    now = dict(re.findall(r"^\| `([\w.]+)` \| (?:`([^`]*)`)?", page, re.MULTILINE))
    before = dict(entry.strip().partition(" ")[::2] for entry in PARAMETERS.split(","))
    assert len(before) == 32
    assert {name: now.get(name) for name in before} == before | CHANGED_DEFAULTS
    for name, value in CHANGED_DEFAULTS.items():
        assert f"| `{name}` | `{before[name]}` | `{value}` |" in PAGE


def test_launch_arguments_have_the_prefix():
    launch = (ROOT / "launch" / "bringup.launch.py").read_text(encoding="utf-8")
    old, _ = rows("Launch file, files and commands")[0]
    arguments = names(old)
    assert len(arguments) == 13
    assert [name for name in arguments if f'"scene_memory_{name}"' not in launch] == []
    assert (ROOT / "config" / "fastdds_large_images.xml").is_file()


def test_modules_that_examples_import_are_named():
    imported = re.compile(r"^from delayed_vlm_ros\.(\w+\.[\w.]+) import", re.MULTILINE)
    sources = [example.read_text(encoding="utf-8") for example in (ROOT / "examples").glob("*.py")]
    modules = {module for source in sources for module in imported.findall(source)}
    assert modules
    assert {module for module in modules if f"`{module}" not in PAGE} == set()
