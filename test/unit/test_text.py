"""Text from outside cannot control a terminal or forge a line of a log, wherever it leaves the package."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros import errors
from delayed_vlm_ros.text import escaped, escaped_json, escaped_lines

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "delayed_vlm_ros"
HOSTILE = "jpeg\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\b\u202e\u2066\u2028\ud800 \udcff"
HARMLESS = "Ein Tüpfelchen，左边是\u3000红色的盒子 👩\u200d🔧 می\u200cخواهم \u00a0 1\u202f000 \u200e"


def controls(text):
    """Return the characters that a terminal may interpret or that no stream can encode."""
    return re.findall("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)


def test_control_characters_are_escaped():
    shown = escaped(f"{HOSTILE}\n\t")
    assert not controls(shown)
    assert shown.startswith("jpeg\\x1b]0;owned\\x07")
    assert escaped(shown) == shown


def test_ordinary_text_of_any_language_stays():
    assert escaped(HARMLESS) == HARMLESS
    assert escaped_lines(f"{HARMLESS}\n{HARMLESS}") == f"{HARMLESS}\n{HARMLESS}"


def test_lines_after_the_first_are_indented():
    assert escaped_lines("a\n[ERROR] b\x1b", "  ") == "a\n  [ERROR] b\\x1b"


@given(st.dictionaries(st.text(), st.text() | st.just(HOSTILE)), st.booleans())
def test_json_without_control_characters_has_the_same_values(content, ascii_only):
    written = escaped_json(content, ascii_only=ascii_only)
    assert not controls(written.replace("\n", ""))
    assert json.loads(written) == content


@pytest.mark.parametrize("kind", [one for one in vars(errors).values() if isinstance(one, type)])
def test_message_of_every_error_is_escaped(kind):
    if issubclass(kind, errors.DelayedVlmError):
        shown = str(kind(f"unknown camera '{HOSTILE}'"))
        assert not controls(shown)
        assert "unknown camera 'jpeg\\x1b" in shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_command_shows_a_hostile_path_in_every_encoding(encoding, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "delayed_vlm_ros", "replay", b"none \xe5\xb7\xa6 \xff\x1b[2J"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": f"{encoding}:strict"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert b"Traceback" not in done.stderr
    assert b"\\x1b[2J" in done.stderr
    assert not controls(done.stderr.decode(encoding).replace("\n", ""))


def test_logs_and_warnings_of_libraries_are_escaped():
    program = (
        "import logging, warnings; from delayed_vlm_ros.text import escape_output; escape_output();"
        "logging.getLogger('x').warning('a\\x1b[2J'); warnings.warn('b\\x9b2J'); logging.getLogger('x').info('c')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not controls(done.stderr.replace("\n", ""))
    assert done.stderr.startswith("a\\x1b[2J\n")
    assert "b\\x9b2J" in done.stderr
    assert "c" not in done.stderr.splitlines()


def syntax_of_package():
    """Yield each module's path and each of its calls, attributes, imports and classes, with its source text."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield file.relative_to(PACKAGE).as_posix(), node, node.func.id
            elif isinstance(node, ast.Attribute) and node.attr in ("write", "echo", "create_node", "print"):
                yield file.relative_to(PACKAGE).as_posix(), node, ast.unparse(node)
            elif isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef):
                bases = node.bases if isinstance(node, ast.ClassDef) else ()
                text = " ".join(map(ast.unparse, bases)) if bases else ast.unparse(node).partition("\n")[0]
                yield file.relative_to(PACKAGE).as_posix(), node, text


# These write text of this package, or errors, whose messages are escaped.
WRITERS = {"cli/terminal.py", "dependencies.py", "ros/initialisation.py", "ros/process.py", "web/dashboard_node.py"}


def test_only_known_modules_write_to_the_terminal():
    writing = ("print", "Console", "rich.print", "typer.echo", "sys.stdout.write", "sys.stderr.write")
    assert {file for file, _, text in syntax_of_package() if text in writing} <= WRITERS


def test_every_node_has_the_logger_that_escapes():
    nodes = {}
    for file, node, text in syntax_of_package():
        if isinstance(node, ast.ClassDef) and {"Node", "LifecycleNode", "LoggingNode"} & set(text.split()):
            nodes[node.name] = text.split()[0]
        elif text in ("Node", "LifecycleNode", "rclpy.create_node"):
            nodes[file] = text
        assert not (isinstance(node, ast.Import | ast.ImportFrom) and "rclpy.logging" in text), file
    assert nodes.pop("LoggingNode") == "Node"
    assert len(nodes) == 5
    assert set(nodes.values()) == {"LoggingNode"}
