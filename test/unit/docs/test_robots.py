"""docs/robots.md, docker/ and systemd/ name only existing files, parameters and commands; needs no ROS or Docker."""

import ast
import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "robots.md").read_text(encoding="utf-8")
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
UNIT_FILE = ROOT / "systemd" / "delayed-vlm.service"
INSTALLED_SHARE = "/install/delayed_vlm_ros/share/delayed_vlm_ros/"

BLOCKS = re.findall(r"^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
WORDS_IN_TEXT = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL))
FOLDERS = "config|docker|docs|examples|lab|launch|rviz|scripts|systemd|test|tools"
A_PATH = re.compile(rf"(?:(?:src|share)/delayed_vlm_ros/|(?<![\w/.-]))((?:{FOLDERS})/[\w./-]*[\w-])")


def commands(text):
    """Yield the commands of code blocks, with continued lines joined and without comments."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        yield from re.split(r"\s(?:&&|\|)\s|; ", line.split(" #")[0].strip())


COMMANDS = [command for block in BLOCKS for command in commands(block) if command]


def dataclass_parameters(module, name):
    """Return the names of a node's parameters, read from the source because importing it needs ROS."""
    source = (ROOT / "delayed_vlm_ros" / f"{module}.py").read_text(encoding="utf-8")
    (found,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    names = set()
    for field in found.body:
        if isinstance(field, ast.AnnAssign):
            words = {keyword.arg: keyword.value for keyword in field.value.keywords}
            names.add(ast.literal_eval(words["name"]) if "name" in words else field.target.id)
    return names


def launch_arguments():
    source = (ROOT / "launch" / "bringup.launch.py").read_text(encoding="utf-8")
    return set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', source))


MEMORY_PARAMETERS = dataclass_parameters("ros/scene_memory/parameters", "SceneMemoryParameters")


def installed_executables():
    programs = re.search(r"install\(PROGRAMS(.*?)DESTINATION", CMAKE, re.DOTALL)[1].split()
    assert all((ROOT / program).is_file() for program in programs)
    return {Path(program).name for program in programs}


def in_repository(installed_path):
    """Return the source of a file of the installed package."""
    assert INSTALLED_SHARE in installed_path
    return ROOT / installed_path.partition(INSTALLED_SHARE)[2]


@pytest.fixture(scope="module")
def unit():
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str
    parser.read_string(UNIT_FILE.read_text(encoding="utf-8"))
    return parser


@pytest.fixture(scope="module")
def service():
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    (only,) = compose["services"].values()
    assert {volume.split(":")[0] for volume in only["volumes"]} <= set(compose["volumes"])
    return only


def environment_of(unit):
    assignments = shlex.split(unit["Service"]["Environment"].replace("\\\n", " "))
    return dict(assignment.split("=", 1) for assignment in assignments)


def test_page_contains_what_these_tests_check():
    assert len(BLOCKS) > 10
    assert {"autostart", "memory.star.size", "model.name"} <= MEMORY_PARAMETERS
    assert {"scene_memory_image_topic", "scene_memory_params_file"} <= launch_arguments()


def test_unit_starts_an_installed_executable_as_unprivileged_user(unit):
    command = unit["Service"]["ExecStart"]
    (executable,) = re.findall(r"/lib/delayed_vlm_ros/([\w-]+)", command)
    assert executable in installed_executables()
    assert unit["Service"]["User"] not in ("", "root")
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartSec"]) > 10 / 5  # systemd's limit, five starts in 10 s, is never reached
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_unit_sets_every_variable_it_uses(unit):
    environment = environment_of(unit)
    assert set(re.findall(r"\$\$([A-Z_]+)", unit["Service"]["ExecStart"])) <= set(environment)
    assert environment["ROS_DOMAIN_ID"].isdecimal()
    assert in_repository(environment["PARAMS_FILE"]).is_file()


def test_compose_builds_the_dockerfile_and_shares_network_and_memory(service):
    build = service["build"]
    assert (ROOT / "docker" / build["context"]).resolve() == ROOT.resolve()
    assert (ROOT / build["dockerfile"]).samefile(ROOT / "docker" / "Dockerfile")
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert (service["network_mode"], service["ipc"]) == ("host", "host")
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert [volume.split(":")[1] for volume in service["volumes"]] == re.findall(
        r"^VOLUME (.+)$", DOCKERFILE, re.MULTILINE
    )
    assert f"HF_HOME={service['volumes'][0].split(':')[1]}" in DOCKERFILE


def test_compose_passes_only_arguments_of_the_launch_file(service):
    assert service["command"][:4] == ["ros2", "launch", "delayed_vlm_ros", "bringup.launch.py"]
    arguments = dict(word.split(":=", 1) for word in service["command"][4:])
    assert set(arguments) <= launch_arguments()
    assert in_repository(arguments["scene_memory_params_file"].partition(":-")[2].rstrip("}")).is_file()


def test_dockerfile_copies_every_source_of_cmake():
    copied = set()
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        copied.update(line.split())
    assert all((ROOT / source).exists() for source in copied)
    built = re.findall(r"^\s*((?:msg|srv|action|scripts)/)", CMAKE, re.MULTILINE)
    folders = re.search(r"install\(DIRECTORY config launch rviz", CMAKE)
    assert folders
    assert {*built, "config/", "launch/", "rviz/", "delayed_vlm_ros/"} == {
        source for source in copied if source.endswith("/")
    }


@pytest.mark.parametrize("name", ["docs/robots.md", "docker/Dockerfile", "docker/compose.yaml"])
def test_untested_file_says_so(name):
    assert "not run here" in (ROOT / name).read_text(encoding="utf-8").lower()


def test_every_path_on_the_page_exists():
    named = {path for text in (*BLOCKS, *WORDS_IN_TEXT) for path in A_PATH.findall(text)}
    assert {"docker/compose.yaml", "examples/ask.py", "config/qwen2.5-vl-3b.yaml"} <= named
    assert not {path for path in named if not (ROOT / path).exists()}


def test_every_linked_heading_exists():
    for page, heading in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", PAGE):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8") if page else PAGE
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}


def test_every_launch_argument_on_the_page_exists():
    launches = [command for command in COMMANDS if "delayed_vlm_ros bringup.launch.py" in command]
    assert len(launches) > 5
    for launch in launches:
        assert set(re.findall(r"\s(\w+):=", launch)) <= launch_arguments(), launch
    options = {word.partition(":=")[0] for word in WORDS_IN_TEXT if re.fullmatch(r"[a-z_]+:=\w+", word)}
    assert options <= launch_arguments()


def test_every_parameter_on_the_page_exists():
    groups = {name.partition(".")[0] for name in MEMORY_PARAMETERS if "." in name}
    named = {word.partition(":")[0] for word in WORDS_IN_TEXT}
    dotted = {name for name in named if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name) and name.split(".")[0] in groups}
    assert {"model.name", "ask.timeout_sec"} <= dotted
    assert dotted <= MEMORY_PARAMETERS


def test_every_subcommand_on_the_page_exists():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "delayed_vlm_ros" / "cli").glob("*.py"))
    named = {command.split()[1] for command in COMMANDS if command.startswith("delayed-vlm ")}
    assert {"ask", "status"} <= named
    assert {name for name in named if re.search(rf"^def {name}\(", source, re.MULTILINE)} == named


def test_interfaces_only_installs_nothing_else():
    assert re.search(r"^option\(INTERFACES_ONLY .* OFF\)$", CMAKE, re.MULTILINE)
    guarded = re.search(r"^if\(NOT INTERFACES_ONLY\)\n(.*?)^endif\(\)", CMAKE, re.MULTILINE | re.DOTALL)[1]
    assert CMAKE.count("install(") == guarded.count("install(") == 3
    assert "rosidl_generate_interfaces" not in guarded
    for page in ("robots.md", "ros.md"):
        assert "-DINTERFACES_ONLY=ON" in (ROOT / "docs" / page).read_text(encoding="utf-8")
