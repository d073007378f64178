import os
import socket

import pytest

from delayed_vlm_ros.ros import isolation


def port_of(number):
    """Return the discovery port of a domain, by the DDSI-RTPS standard."""
    return 7400 + 250 * number


@pytest.fixture
def bound():
    """Return a function that opens the discovery port of a domain, on IPv4 or IPv6, and returns the domain."""
    sockets = []

    def bind(family, address):
        for number in range(100, 0, -1):
            one = socket.socket(family, socket.SOCK_DGRAM)
            try:
                one.bind((address, port_of(number)))
            except OSError:
                one.close()  # in use by another process
            else:
                sockets.append(one)
                return number
        return pytest.skip(f"no free port on {address}")

    yield bind
    for one in sockets:
        one.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_domain_with_an_open_discovery_port_is_avoided(monkeypatch, bound, family, address):
    # given two domains, one of them taken
    taken = bound(family, address)
    ports = isolation._udp_ports()
    free = next(number for number in range(1, 101) if not ports & set(range(port_of(number), port_of(number + 1))))
    monkeypatch.setattr(isolation, "_DOMAINS", [taken, free])

    # then
    assert {isolation.free_domain() for _ in range(50)} == {free}


def test_domain_with_any_open_port_is_avoided(monkeypatch):
    monkeypatch.setattr(isolation, "_DOMAINS", [7, 8])
    monkeypatch.setattr(isolation, "_udp_ports", lambda: {port_of(7) + 249})
    assert {isolation.free_domain() for _ in range(50)} == {8}


def test_domain_is_neither_the_default_nor_in_the_ephemeral_port_range():
    found = {isolation.free_domain() for _ in range(100)}
    assert found <= set(range(1, 102))
    assert len(found) > 1  # two demos started together choose differently


def test_domain_is_shared_when_all_are_in_use(monkeypatch):
    monkeypatch.setattr(isolation, "_udp_ports", lambda: set(range(2**16)))
    assert isolation.free_domain() in range(1, 102)


def test_domain_is_chosen_when_the_open_ports_are_unknown(monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError("/proc")

    monkeypatch.setattr(isolation.Path, "read_text", refuse)
    assert isolation._udp_ports() == set()
    assert isolation.free_domain() in range(1, 102)


def test_environment_is_isolated_and_the_process_environment_unchanged(monkeypatch):
    # given an environment that reaches the robot
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("ROS_STATIC_PEERS", "192.168.0.7")
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    before = dict(os.environ)

    # when
    environment = isolation.isolated_environment()

    # then
    assert environment["ROS_DOMAIN_ID"] in {str(number) for number in range(1, 102)}
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert {name for name in before | environment if environment.get(name) != before.get(name)} == {
        "ROS_DOMAIN_ID",
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "ROS_STATIC_PEERS",
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
    }
    assert "ROS_STATIC_PEERS" not in environment
    assert dict(os.environ) == before


def test_environment_of_humble_is_localhost_only_without_profile(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "humble")
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "0")
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    environment = isolation.isolated_environment()
    assert environment["ROS_LOCALHOST_ONLY"] == "1"
    # a profile would override it there
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in environment


@pytest.mark.parametrize("distribution", [None, "jazzy", "kilted"])
def test_profile_is_set_for_both_versions_of_fast_dds(monkeypatch, distribution):
    # wheels set no ROS_DISTRO, so the version is unknown before the nodes start
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    if distribution:
        monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    assert [key for key in isolation.isolated_environment() if "PROFILES_FILE" in key] == [
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
    ]


@pytest.mark.parametrize("name", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_profile_of_the_user_is_kept(monkeypatch, name):
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.setenv(name, "mine.xml")
    environment = isolation.isolated_environment()
    assert {key: value for key, value in environment.items() if "PROFILES_FILE" in key} == {name: "mine.xml"}
