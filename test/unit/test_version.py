"""package.xml and the changelog have the version of the package."""

import xml.etree.ElementTree as ET
from pathlib import Path

from delayed_vlm_ros import __version__

ROOT = Path(__file__).parents[2]


def test_package_xml_has_the_version_of_the_package():
    assert ET.parse(ROOT / "package.xml").findtext("version") == __version__


def test_changelog_has_a_section_for_the_version():
    lines = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(__version__) for line in lines)
