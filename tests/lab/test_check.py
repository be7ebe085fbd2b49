"""``edgebed check`` on virtual Pis: the real script over real SSH, and sensors that are made to show trouble."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgebed.metering.board import board_from_dict, load_board
from orchestrator.cli.hosts import HostsSession
from orchestrator.cli.output import Output
from orchestrator.doctor.calibration import calibrate_hosts
from orchestrator.lab.cgroups import HostCgroup
from tests.lab.running_lab import RunningLab, answer_of, edgebed, eventually

Checks = dict[str, dict[str, str]]


def checked(lab: RunningLab) -> tuple[int, dict[str, Checks]]:
    """Exit status, and each host's findings by check; of several of one check the worst."""
    done = edgebed("check", lab.hosts_file, "--json", timeout_s=120.0)
    assert done.stdout, done.stderr
    hosts = json.loads(done.stdout.splitlines()[-1])["hosts"]
    return done.returncode, {
        name: {each["check"]: each for each in reversed(findings)} for name, findings in hosts.items()
    }


@contextmanager
def scripted(lab: RunningLab, host: str, **changes: Any) -> Iterator[None]:
    lab.live.script_sensors(host, **changes)
    try:
        yield
    finally:
        lab.live.script_sensors(host, **dict.fromkeys(changes))


def assert_is(finding: dict[str, str], status: str, *words: str) -> None:
    assert finding["status"] == status, finding
    for word in words:
        assert word in finding["evidence"], finding
    assert bool(finding["fix"]) == (status != "ok"), finding


@pytest.fixture(scope="module")
def healthy(lab: RunningLab) -> tuple[int, dict[str, Checks]]:
    """What a check of the untouched lab finds; made before any test of this file touches it."""
    return checked(lab)


def test_healthy_hosts_pass(healthy: tuple[int, dict[str, Checks]]) -> None:
    status, hosts = healthy
    assert status == 0, hosts
    assert list(hosts) == ["edge", "pi-1", "pi-2"]
    for name, checks in hosts.items():
        assert_is(checks["reachable"], "ok", "by SSH as")
        assert_is(checks["architecture"], "ok", "64 bits")
        assert_is(checks["python"], "ok", "3.11")
        assert_is(checks["disk"], "ok", "GB free")
        assert_is(checks["clock"], "ok", "ms +-")
        assert_is(checks["wifi"], "ok", "wired")
        assert_is(checks["machine_id"], "ok", "its own")
        assert_is(checks["host_key"], "ok", "its own")
        assert_is(checks["lease"], "ok")
        assert ("round_trip" in checks) == (name != "edge")
    for name, code in (("pi-1", "c03114"), ("pi-2", "d04170")):
        assert_is(hosts[name]["throttling"], "ok", "0x")
        # Virtual boards have no more cores than this machine.
        has_all = int(hosts[name]["board"]["evidence"].partition(" cores")[0].split()[-1]) >= 4
        assert_is(hosts[name]["board"], "ok" if has_all else "warn", "Raspberry Pi", code)
        assert_is(hosts[name]["meter"], "ok", "hwmon_ina2xx")


def test_round_trips_are_those_of_the_links(healthy: tuple[int, dict[str, Checks]]) -> None:
    _, hosts = healthy
    for name in ("pi-1", "pi-2"):
        trip = hosts[name]["round_trip"]
        p50_ms = float(trip["evidence"].partition("p50 ")[2].split()[0])
        assert 8.0 < p50_ms < 60.0, trip  # twice 5 +- 1 ms, and the hosts' own time


def test_heat_and_throttling_are_warnings_and_only_there(lab: RunningLab) -> None:
    with scripted(lab, "pi-1", temperature_c=86.0, throttle_word=0x1):
        eventually(lambda: "throttled=0x7" in lab.said("pi-1", "vcgencmd get_throttled"))
        status, hosts = checked(lab)
    assert status == 0  # warnings do not stop a run
    assert_is(hosts["pi-1"]["throttling"], "warn", "now: ", "throttled", "under voltage", "since boot")
    assert_is(hosts["pi-1"]["temperature"], "warn", "86.0")
    assert_is(hosts["pi-1"]["cpu_clock"], "warn", "by the firmware")
    assert_is(hosts["pi-2"]["throttling"], "ok")
    assert_is(hosts["pi-2"]["temperature"], "ok")


def test_an_unreachable_host_fails_and_the_others_are_checked(lab: RunningLab) -> None:
    lab.live.power_off("pi-2")
    try:
        eventually(lambda: lab.live.status()["hosts"]["pi-2"]["state"] == "off")
        status, hosts = checked(lab)
    finally:
        lab.live.boot("pi-2")
    eventually(lambda: lab.ssh("pi-2", "true").returncode == 0)
    assert status == 1
    assert list(hosts["pi-2"]) == ["reachable"]
    assert hosts["pi-2"]["reachable"]["status"] == "fail"
    assert hosts["pi-2"]["reachable"]["fix"]
    assert_is(hosts["pi-1"]["reachable"], "ok")
    assert "round_trip" in hosts["pi-1"]


def test_a_cloned_host_is_found(lab: RunningLab) -> None:
    original = lab.said("pi-1", "cat /etc/machine-id")
    own = lab.said("pi-2", "cat /etc/machine-id")
    file = "sudo -n tee /etc/machine-id >/dev/null"
    lab.said("pi-2", f"echo {original} | {file}")
    try:
        _, hosts = checked(lab)
    finally:
        lab.said("pi-2", f"echo {own} | {file}")
    assert_is(hosts["pi-2"]["machine_id"], "warn", "the same as pi-1")
    assert_is(hosts["edge"]["machine_id"], "ok")


@contextmanager
def preferred(lab: RunningLab, host: str) -> Iterator[None]:
    """A host that gets processors when it wants them, whoever else uses this machine: its load has to be a load."""
    name = lab.live.lab.network_of(lab.live.lab.host(host))
    files = [
        (folder / file, weight)
        for folder in HostCgroup(name).folders
        for file, weight in (("cpu.shares", "20000"), ("cpu.weight", "2000"))
        if (folder / file).exists()
    ]
    before = [path.read_text() for path, _ in files]
    for path, weight in files:
        path.write_text(weight)
    try:
        yield
    finally:
        for (path, _), text in zip(files, before, strict=True):
            path.write_text(text)


def test_calibrating_finds_the_model_that_the_scripted_meter_follows(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_of(edgebed("deploy", lab.hosts_file, "--host", "pi-1", "--json"))
    project = tmp_path / "hosts" / "lab.yaml"
    project.parent.mkdir()
    output = Output(as_json=True)
    session = HostsSession(lab.hosts_file, output)
    only = replace(session.inventory, devices=(session.inventory.host("pi-1"),))
    try:
        with preferred(lab, "pi-1"):
            status = calibrate_hosts(only, project, session.connect, output, settle_s=2.0, window_s=3.0)
    finally:
        answer_of(edgebed("clean", lab.hosts_file, "--host", "pi-1", "--json"))
    captured = capsys.readouterr()
    assert status == 0, captured.err
    found = json.loads(captured.out.splitlines()[-1])["hosts"]
    assert list(found) == ["pi-1"]
    true = board_from_dict(lab.live.lab.host("pi-1").board)
    assert found["pi-1"]["idle_w"] == pytest.approx(true.idle_w, rel=0.10)
    assert found["pi-1"]["max_w"] == pytest.approx(true.max_w, rel=0.10)
    board = load_board(tmp_path / "boards" / f"{true.name}-pi-1.yaml")
    assert board.power_kind == "measured"
    for name in ("idle_w", "max_w"):
        error_w = board.error_fraction * getattr(board, name)
        assert abs(getattr(board, name) - getattr(true, name)) <= error_w + 0.02, board
