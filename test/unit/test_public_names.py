"""The public names of the package, which are imported on first access."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import delayed_vlm_ros
from delayed_vlm_ros import errors

ROOT = Path(__file__).parents[2]
REQUIRES = {
    "DelayedBatchInferenceEngine": "torch",
    "RemoteInferenceEngine": "openai",
    "SceneMemoryClient": "rclpy",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_importing_the_package_imports_no_part_of_it():
    done = run(
        "import sys, delayed_vlm_ros\n"
        "assert delayed_vlm_ros.__version__\n"
        "print([name for name in sys.modules if name.startswith('delayed_vlm_ros.')"
        " or name in ('torch', 'transformers', 'rclpy', 'numpy')])"
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("name", delayed_vlm_ros.__all__)
def test_public_name_resolves(name):
    if name in REQUIRES:
        pytest.importorskip(REQUIRES[name])
    value = getattr(delayed_vlm_ros, name)
    assert inspect.isclass(value)
    assert value.__name__ == name
    assert name in dir(delayed_vlm_ros)


def test_memory_names_import_neither_torch_nor_ros():
    done = run(
        "import sys\n"
        "from delayed_vlm_ros import MemoryConfig, NoFramesError, SmartFrameManager\n"
        "print([name for name in ('torch', 'transformers', 'rclpy') if name in sys.modules])"
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_every_error_class_is_public():
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.DelayedVlmError)
    }
    assert classes <= set(delayed_vlm_ros.__all__)


def test_unknown_name_raises_attribute_error():
    assert not hasattr(delayed_vlm_ros, "no_such_name")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = delayed_vlm_ros.no_such_name


def test_missing_dependency_raises_import_error():
    done = run(
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "try:\n"
        "    from delayed_vlm_ros import DelayedBatchInferenceEngine\n"
        "except ImportError as error:\n"
        "    print(error.name)\n"
    )
    assert (done.stdout.strip(), done.returncode) == ("torch", 0), done.stderr
