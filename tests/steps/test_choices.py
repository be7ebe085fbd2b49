"""From facts and inventory to what a host is to have, or to the sentence that says why it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgebed.errors import BadInput
from orchestrator.inventory import Host
from orchestrator.provision.choices import (
    check_host,
    choose_keeper,
    choose_python,
    clock_for,
    platform_of,
    programs_for,
    unit_for,
)
from orchestrator.provision.facts import HostFacts, Interpreter
from orchestrator.provision.installation import Record
from orchestrator.provision.ledger import Entry
from orchestrator.provision.steps import CHRONY_FILE, SYSTEM_UNIT
from orchestrator.provision.wheelhouse import Platform

HOST = Host(name="pi-1", role="device", connection="ssh", address="10.0.0.1", board="raspberry-pi-4b")
PYTHON = Interpreter("/usr/bin/python3", (3, 11))
PI = HostFacts(
    user="pi",
    uid=1000,
    home="/home/pi",
    machine="aarch64",
    bits=64,
    glibc=(2, 36),
    state_root="/home/pi/.local/state/edgebed",
    pythons=(PYTHON,),
    systemd=frozenset({"system", "user"}),
    sudo=True,
)
RECORD = Record(
    digest="d",
    wheel="w",
    edgebed="0.1.0",
    interpreter="/opt/python",
    python="3.12",
    machine="aarch64",
    keeper="systemd_user",
)


def test_a_pi_as_it_comes_is_fine() -> None:
    check_host(HOST, PI)
    assert choose_python(HOST, PI) == PYTHON
    assert platform_of(PI, PYTHON) == Platform("aarch64", (3, 11))


REFUSED = [
    ({"bits": 32}, {}, "has a 32-bit system"),
    ({"machine": "armv7l", "bits": 32}, {}, "install a 64-bit one, such as Raspberry Pi OS"),
    ({"machine": "riscv64"}, {}, "machine type riscv64; there are wheels for x86_64 and aarch64"),
    ({"glibc": (2, 24)}, {}, "has glibc 2.24, the packages need 2.28"),
    ({"glibc": None}, {}, "another C library than glibc"),
    ({"kernel": "Darwin"}, {}, "runs Darwin"),
    ({"root": "foreign"}, {}, "/home/pi/.edgebed is there and edgebed has not made it; move it away"),
    ({"writable": False}, {}, "read-only"),
    ({"home": "/home/p i"}, {}, "characters that systemd misreads"),
    ({"sudo": False}, {"service": "system"}, "edgebed_service: system needs sudo without a password for pi"),
    ({"systemd": frozenset()}, {"service": "user"}, "no systemd runs there; set edgebed_service: none"),
    ({"chrony": False}, {"clock": "chrony"}, "chrony is not installed"),
    ({"chrony": True, "sudo": False}, {"clock": "chrony"}, "edgebed_clock: chrony needs sudo"),
    ({"sums": ((SYSTEM_UNIT, "1"),)}, {}, f"{SYSTEM_UNIT} is there and /home/pi/.edgebed says nothing of it"),
    ({"sums": ((CHRONY_FILE, "1"),), "chrony": True}, {"clock": "chrony"}, "edgebed has not made it"),
]


@pytest.mark.parametrize(("facts", "host", "says"), REFUSED, ids=[says[:40] for _, _, says in REFUSED])
def test_refused_with_the_reason(facts: dict[str, Any], host: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_host(replace(HOST, **host), replace(PI, **facts))
    assert says in str(caught.value)
    assert str(caught.value).startswith("pi-1: ")


def test_what_edgebed_has_made_is_in_nobodys_way() -> None:
    entries = (Entry(key="unit:system", what="", undo=""), Entry(key="clock", what="", undo=""))
    sums = ((SYSTEM_UNIT, "1"), (CHRONY_FILE, "1"))
    check_host(replace(HOST, clock="chrony"), replace(PI, sums=sums, ledger=entries, chrony=True))


def test_all_objections_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        check_host(HOST, replace(PI, bits=32, root="foreign", writable=False))
    assert len(caught.value.problems) == 3


PYTHONS = [
    ([("/usr/bin/python3", (3, 11), ())], "/usr/bin/python3"),
    ([("/usr/bin/python3", (3, 9), ()), ("/opt/python3.12", (3, 12), ())], "/opt/python3.12"),
    ([("/usr/bin/python3", (3, 11), ("venv",)), ("/opt/python3.13", (3, 13), ())], "/opt/python3.13"),
]


@pytest.mark.parametrize(("pythons", "expected"), PYTHONS)
def test_the_first_python_that_will_do(pythons: list[tuple[Any, ...]], expected: str) -> None:
    found = tuple(Interpreter(path, version, 64, missing) for path, version, missing in pythons)
    assert choose_python(HOST, replace(PI, pythons=found)).path == expected


NO_PYTHON: list[tuple[tuple[Interpreter, ...], str | None, str]] = [
    ((), None, "has no Python; `sudo apt-get install python3`, allowed: 3.11, 3.12, 3.13"),
    ((), "/opt/python", "edgebed_python: /opt/python does not start there"),
    ((Interpreter("/usr/bin/python3", (3, 9)),), None, "only /usr/bin/python3 3.9; allowed: 3.11"),
    ((Interpreter("/usr/bin/python3", (3, 14)),), None, "only /usr/bin/python3 3.14"),
    ((Interpreter("/usr/bin/python3", (3, 11), 64, ("venv", "zlib")),), None, "lacks venv, zlib"),
    ((Interpreter("/usr/bin/python3", (3, 11), 32),), None, "has no Python that edgebed runs with"),
]


@pytest.mark.parametrize(("pythons", "asked", "says"), NO_PYTHON, ids=[says[:30] for _, _, says in NO_PYTHON])
def test_no_python_that_will_do(pythons: tuple[Interpreter, ...], asked: str | None, says: str) -> None:
    with pytest.raises(BadInput, match="pi-1") as caught:
        choose_python(replace(HOST, python=asked), replace(PI, pythons=pythons))
    assert says in str(caught.value)


def test_a_deployed_host_keeps_its_python_without_being_asked_again() -> None:
    chosen = choose_python(HOST, replace(PI, pythons=(), record=RECORD))
    assert (chosen.path, chosen.version) == ("/opt/python", (3, 12))


KEEPERS = [
    ("auto", {}, "systemd_system"),
    ("auto", {"sudo": False}, "shell"),
    ("auto", {"sudo": False, "linger": True}, "systemd_user"),
    ("auto", {"sudo": False, "uid": 0}, "systemd_system"),
    ("auto", {"systemd": frozenset()}, "shell"),
    ("auto", {"record": RECORD}, "systemd_user"),
    ("none", {}, "shell"),
    ("user", {"record": RECORD}, "systemd_user"),
    ("system", {"record": RECORD}, "systemd_system"),
]


@pytest.mark.parametrize(("service", "facts", "expected"), KEEPERS)
def test_who_keeps_the_programs(service: Any, facts: dict[str, Any], expected: str) -> None:
    assert choose_keeper(replace(HOST, service=service), replace(PI, **facts)) == expected


def test_programs_by_role() -> None:
    assert programs_for(HOST) == ("device_agent",)
    assert programs_for(replace(HOST, role="edge_server")) == ("controller", "edge_server")


def test_the_units_of_a_system_and_of_a_user() -> None:
    system = unit_for("systemd_system", replace(PI, groups=frozenset({"video"})))
    user = unit_for("systemd_user", PI)
    assert "\nUser=pi\n" in system
    assert "\nSupplementaryGroups=video\n" in system
    assert "\nReadWritePaths=-/home/pi/.local/state/edgebed\n" in system
    assert "WantedBy=multi-user.target" in system
    assert "User=" not in user, "a user's systemd has no other user"
    assert "ProtectSystem" not in user
    assert "WantedBy=default.target" in user
    for text in (system, user):
        assert 'ExecStart=/bin/sh "/home/pi/.edgebed/launch.sh" %i' in text
        assert "RestartPreventExitStatus=2" in text
        assert "NoNewPrivileges=yes" in text
        assert "{" not in text
    assert unit_for("shell", PI) == ""


EDGE = replace(HOST, name="edge", role="edge_server", address="10.0.0.9", clock="chrony")


def test_devices_follow_the_edge_server_and_only_they_may_ask_it() -> None:
    device = replace(HOST, clock="chrony")
    assert "server 10.0.0.9 iburst" in clock_for(device, EDGE, (device,))
    assert clock_for(EDGE, EDGE, (device,)) == "local stratum 10\nallow 10.0.0.1\n"
    assert clock_for(HOST, EDGE, (HOST,)) == "", "measured only, unless asked for"


def test_nobody_can_follow_the_clock_of_this_machine() -> None:
    with pytest.raises(BadInput, match="edge is this machine"):
        clock_for(replace(HOST, clock="chrony"), replace(EDGE, connection="local"), ())
