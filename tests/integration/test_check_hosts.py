"""``edgebed check`` end to end without SSH: the real script, the real commands, real echoes, on this machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgebed.errors import RemoteError
from orchestrator.cli import main
from orchestrator.doctor.examination import examine
from orchestrator.doctor.finding import Finding, Status
from orchestrator.doctor.probe import probe, read_clock
from orchestrator.doctor.round_trips import EchoServer, measure, start_echo
from orchestrator.inventory import Host, Inventory, load_inventory
from orchestrator.remote.base import Completed, Remote
from orchestrator.remote.local import LocalRemote
from orchestrator.remote.testing import FakeRemote

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "inventory/hosts/local.yaml"
PYTHON = "python3"

pytestmark = pytest.mark.integration


@pytest.fixture
def here() -> LocalRemote:
    remote = LocalRemote("here")
    remote.connect()
    return remote


def test_the_script_runs_to_its_end_and_says_nothing_on_standard_error(here: LocalRemote) -> None:
    said = probe(here)
    assert said.is_whole
    assert int(said.text("cores")) >= 1
    assert "MemTotal" in said.text("memory")
    assert said.text("sudo") in ("root", "yes", "no")


def test_this_machine_s_clock_agrees_with_itself(here: LocalRemote) -> None:
    reading = read_clock(here)
    assert reading is not None
    assert abs(reading.offset_s) <= reading.error_s


def test_a_clock_that_is_off_is_measured_with_its_error(here: LocalRemote) -> None:
    import time

    reading = read_clock(here, now=lambda: time.time() - 3.0)
    assert reading is not None
    assert abs(reading.offset_s - 3.0) <= reading.error_s


def test_echoes_are_timed_and_the_echo_server_ends_by_itself(here: LocalRemote) -> None:
    server = start_echo(here, PYTHON, "127.0.0.1", 0, clients=1)
    measured = measure(here, PYTHON, server)
    assert measured.problem == ""
    assert measured.count == 100
    assert 0 < measured.p50_s <= measured.p99_s
    # It has served the client that it was told of, and is gone: nobody listens there any more.
    again = until_refused(here, server)
    assert "refused" in again


def until_refused(remote: Remote, server: EchoServer) -> str:
    for _ in range(50):
        problem = measure(remote, PYTHON, server).problem
        if "refused" in problem:
            return problem
    return "it still answers"


def test_who_does_not_know_the_token_gets_no_echo(here: LocalRemote) -> None:
    server = start_echo(here, PYTHON, "127.0.0.1", 0, clients=2)
    stranger = measure(here, PYTHON, replace(server, token="0" * 16))
    assert stranger.count == 0
    assert "connection" in stranger.problem.lower()  # closed, or reset with what was unread
    assert measure(here, PYTHON, server).problem == ""


def test_a_port_that_is_taken_is_an_error_of_the_host(here: LocalRemote) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RemoteError, match="in use"):
        start_echo(here, PYTHON, "127.0.0.1", taken.getsockname()[1], clients=1)


class OverThere(LocalRemote):
    """This machine, as a host that is reached by SSH would look."""


def as_ssh(inventory: Inventory) -> Inventory:
    """The local inventory as if its hosts were behind SSH, at this machine's loopback address."""

    def behind(host: Host) -> Host:
        return replace(host, connection="ssh", address="127.0.0.1", board="generic-x86", slowdown=1.0)

    return replace(
        inventory,
        devices=tuple(map(behind, inventory.devices)),
        edge_servers=tuple(map(behind, inventory.edge_servers)),
    )


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in findings}


def test_an_unreachable_host_is_one_finding_and_stops_nobody() -> None:
    inventory = as_ssh(load_inventory(LOCAL))

    def connect(host: Host) -> Remote:
        return FakeRemote(host.name, faults=Counter(connect=1)) if host.name == "pi-2" else OverThere(host.name)

    found = examine(inventory, connect)
    (only,) = found["pi-2"]
    assert (only.check, only.status) == ("reachable", Status.FAIL)
    assert "the connection was lost" in only.evidence
    assert "ssh 127.0.0.1" in only.fix
    for name in ("edge", "pi-1", "pi-3"):
        checks = by_check(found[name])
        assert checks["reachable"].status is Status.OK
        assert {"architecture", "disk", "board", "sudo", "clock", "clock_sync", "wifi"} <= set(checks)
        assert {"version", "lease"} <= set(checks)
        # All of them are one machine, which is what a cloned image looks like.
        assert checks["machine_id"].status is Status.WARN
    for name in ("pi-1", "pi-3"):
        trip = by_check(found[name])["round_trip"]
        assert trip.status in (Status.OK, Status.WARN), trip
        assert "100 echoes" in trip.evidence
    assert list(found) == ["edge", "pi-1", "pi-2", "pi-3"]


def test_a_host_that_is_lost_half_way_is_one_finding() -> None:
    inventory = as_ssh(load_inventory(LOCAL))

    class Leaves(OverThere):
        def execute(self, command: str, **options: object) -> Completed:
            if "@@" in command:
                raise RemoteError(self.host, "the check", "the host was lost")
            return super().execute(command, **options)  # type: ignore[arg-type]

    found = examine(inventory, lambda host: (Leaves if host.name == "pi-1" else OverThere)(host.name))
    assert [(each.check, each.status) for each in found["pi-1"]] == [("reachable", Status.FAIL)]
    assert by_check(found["pi-3"])["reachable"].status is Status.OK


def test_local_hosts_are_one_machine_and_asked_once() -> None:
    asked: list[str] = []

    def connect(host: Host) -> Remote:
        asked.append(host.name)
        return LocalRemote(host.name)

    found = examine(load_inventory(LOCAL), connect)
    assert asked == ["edge"]
    assert set(found) == {"edge", "pi-1", "pi-2", "pi-3"}
    assert not {"sudo", "version", "clock", "round_trip"} & {each.check for each in found["pi-1"]}


Run = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(arguments: list[str]) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def test_the_verb_on_this_machine(run: Run) -> None:
    status, out, err = run(["check", str(LOCAL), "--json"])
    assert status == 0, err
    (line,) = out.splitlines()
    hosts = json.loads(line)["hosts"]
    assert list(hosts) == ["edge", "pi-1", "pi-2", "pi-3"]
    assert all(set(each) == {"check", "status", "evidence", "fix"} for each in hosts["edge"])
    assert "this machine" in err
    status, out, _ = run(["check", str(LOCAL)])
    assert status == 0
    assert "pi-3" in out
    assert " 0 fail" in out


def test_a_check_that_fails_is_exit_status_1_and_comes_first(run: Run, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(LOCAL.read_text().replace("pi-1: {", "pi-1: { edgebed_meter: hwmon_ina2xx,"))
    status, out, _ = run(["check", str(hosts), "--json"])
    assert status == 1
    first = json.loads(out)["hosts"]["pi-1"][0]
    assert (first["check"], first["status"]) == ("meter", "fail")
    assert "docs/hardware.md" in first["fix"]


def test_a_wrong_hosts_file_is_bad_input(run: Run, tmp_path: Path) -> None:
    status, out, err = run(["check", str(tmp_path / "none.yaml")])
    assert (status, out) == (2, "")
    assert "none.yaml: cannot be read" in err


def test_calibrating_without_a_sensor_is_bad_input(run: Run) -> None:
    status, out, err = run(["check", str(LOCAL), "--calibrate"])
    assert (status, out) == (2, "")
    assert "cpu_model is itself a model" in err
    assert "no host has a meter that sees its board" in err
