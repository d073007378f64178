"""Results of a benchmark's parts in files, so that a benchmark that was cut short measures only the missing parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PartStore:
    """Folder with one file for each measured part.

    Attributes:
        folder: Folder of the files; created when the first part is written.
        settings: What the results depend on; a part measured with other settings counts as missing.
    """

    folder: Path
    settings: Mapping[str, Any]

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the result of a part; None: it is missing, incomplete, or was measured with other settings."""
        try:
            stored = json.loads(self._file(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(stored, dict) or stored.get("settings") != self.settings:
            return None
        return dict(stored["result"])

    def write(self, name: str, result: Mapping[str, Any]) -> None:
        """Store the result of a part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._file(name).with_suffix(".new")
        new.write_text(json.dumps({"settings": self.settings, "result": result}, indent=2), encoding="utf-8")
        new.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '_')}.json"
