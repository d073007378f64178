"""Hooks of MkDocs: pages from files outside ``docs``, and the reference pages generated from interfaces and code.

``mkdocs.yml`` names this module. The pages in ``docs`` link to files of the repository with paths such as
``../config/scene_memory.yaml``, so that the links work in an editor and on a code host as well. On the site, these
files are under ``files/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
INTERFACES, PYTHON = "reference/interfaces.md", "reference/python.md"

_OUTSIDE = re.compile(r"(?<=\]\()\.\./(?=[\w.])")
_LINK = re.compile(r"\]\(\.\./([\w./-]+)")
_HOME_LINK = re.compile(r"(?<=\]\()(?!docs/|https?:|#)([\w./-]+)")
_EXAMPLE = re.compile(r"\]\(([\w.]+)\)")
_KINDS = (("msg", "Messages"), ("srv", "Services"), ("action", "Actions"))

# Section -> objects of the Python interface, in the order of the page.
_OBJECTS = {
    "Memory and engine": (
        "memory.manager.SmartFrameManager",
        "memory.config.MemoryConfig",
        "inference.local.engine.DelayedBatchInferenceEngine",
        "inference.metrics.AskMetrics",
        "inference.request",
        "inference.yes_no.ScoreResult",
        "inference.moments",
    ),
    "A model server": ("inference.remote.scene.RemoteInferenceEngine", "inference.remote.settings.RemoteSettings"),
    "A running node": (
        "ros.client.SceneMemoryClient",
        "ros.watch_client.WatchClient",
        "ros.journal_client.JournalClient",
    ),
    "Errors": ("errors",),
}


def on_files(files: Files, *, config: Any) -> Files:
    """Add the linked files outside ``docs`` and the generated pages to the site."""
    linked = {name for page in Path(config.docs_dir).glob("*.md") for name in _LINK.findall(page.read_text("utf-8"))}
    examples = {f"examples/{name}" for name in _EXAMPLE.findall((ROOT / "examples/README.md").read_text("utf-8"))}
    for name in sorted(linked | examples | set(_HOME_LINK.findall(_readme()))):
        files.append(File.generated(config, f"files/{name}", abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "index.md", content=_home()))
    files.append(File.generated(config, "changelog.md", content=_changelog()))
    files.append(File.generated(config, INTERFACES, content="\n".join(_interfaces())))
    files.append(File.generated(config, PYTHON, content="\n".join(_python())))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to files of the repository to their copies."""
    source: str = page.file.src_uri
    if source.startswith("files/"):
        return re.sub(r"(?<=\]\()(?:\.\./)*docs(/|(?=\)))", lambda link: _home_path(source, link[1]), markdown)
    return markdown if "/" in source else _OUTSIDE.sub("files/", markdown)


def _home_path(source: str, page: str) -> str:
    return "../" * source.count("/") + ("" if page else "index.md")


def _home() -> str:
    """Return README.md with links as in ``docs``."""
    return _HOME_LINK.sub(r"files/\1", _readme()).replace("](docs/", "](")


def _readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def _changelog() -> str:
    text = (ROOT / "CHANGELOG.rst").read_text("utf-8")
    return f"# Changes\n\n```rst\n{text}```\n"


def _interfaces() -> Iterator[str]:
    yield "# Interfaces\n"
    yield "The definitions as the node uses them. [ros.md](../ros.md) has topics, services and examples.\n"
    for folder, title in _KINDS:
        yield f"## {title}\n"
        for file in sorted((ROOT / folder).glob(f"*.{folder}")):
            yield f"### {file.stem}\n\n```yaml\n{file.read_text('utf-8').strip()}\n```\n"


def _python() -> Iterator[str]:
    yield "# Python\n"
    yield "The package imports its public names on first access: `from delayed_vlm_ros import SmartFrameManager`.\n"
    for title, objects in _OBJECTS.items():
        yield f"## {title}\n"
        for name in objects:
            yield f"::: delayed_vlm_ros.{name}\n"
