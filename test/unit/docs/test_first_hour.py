"""docs/first_hour.md explains every subject that ``delayed-vlm doctor`` reports, and names only existing things."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
SERVER_PAGE = (ROOT / "docs" / "remote.md").read_text(encoding="utf-8")
DOCTOR = "".join(
    file.read_text(encoding="utf-8") for file in sorted((ROOT / "delayed_vlm_ros" / "doctor").glob("*.py"))
)
FINDING = r"\b(?:ok|warn|error|_check|_writable)\(\s*f?\"([^\"{]+)"
SUBJECT = r"\b(?:subject|_ROS_CLOCK) = f?\"([^\"{]+)"
GROUPS = {"disk", "ros variables", "node"}  # subjects only of checks that fail themselves


def test_every_subject_is_explained():
    subjects = {name.strip() for name in re.findall(f"{FINDING}|{SUBJECT}", DOCTOR) for name in name if name}
    explained = {re.sub(r" ?….*", "", name) for name in re.findall(r"`([^`\n]+)`", PAGE + SERVER_PAGE)}
    assert {"python", "gpu", "camera", "ros clock", "message exchange", "stamps of", "page token"} <= subjects
    assert {
        name for name in subjects - GROUPS if name not in explained and name.partition(" for")[0] not in explained
    } == set()


def test_options_launch_arguments_and_files_exist():
    command = (ROOT / "delayed_vlm_ros" / "cli" / "doctor.py").read_text(encoding="utf-8")
    doctor_options = set(re.findall(r"^delayed-vlm doctor (--[a-z-]+)(?: \S+)?(?: (--[a-z-]+))?", PAGE, re.MULTILINE))
    for option in {one for options in doctor_options for one in options if one}:
        assert option[2:].replace("-", "_") in command or option == "--json"
    launch = (ROOT / "launch" / "bringup.launch.py").read_text(encoding="utf-8")
    for argument in re.findall(r"\s([a-z_]+):=", PAGE):
        assert f'"{argument}"' in launch
    assert (ROOT / "config" / "fastdds_large_images.xml").is_file()
