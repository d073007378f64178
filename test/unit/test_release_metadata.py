"""package.xml and CHANGELOG.rst as bloom and catkin_prepare_release read them."""

from pathlib import Path

import pytest

from delayed_vlm_ros import __version__

ROOT = Path(__file__).parents[2]
catkin_changelog = pytest.importorskip("catkin_pkg.changelog", reason="catkin_pkg is not installed")
catkin_package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
catkin_version = pytest.importorskip("catkin_pkg.package_version", reason="catkin_pkg is not installed")


def test_package_xml_is_valid_without_a_warning():
    warnings = []
    package = catkin_package.parse_package(str(ROOT), warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    assert package.version == __version__
    assert package.get_build_type() == "ament_cmake"


def test_changelog_has_the_released_version_with_a_date():
    changelog = catkin_changelog.get_changelog_from_path(str(ROOT), package_name="delayed_vlm_ros")
    dates = {version: date for version, date, _ in changelog.foreach_version()}
    assert dates[__version__] is not None


def test_changelog_section_of_the_next_release_is_found():
    text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    label = catkin_version.get_forthcoming_label(text)
    if label is not None:  # None just after a release
        assert label.startswith("Forthcoming")
        assert f"\n{label}\n---" in text
