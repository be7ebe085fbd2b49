"""All hosts of an inventory are asked at once, and what they say becomes findings."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from edgebed.errors import EdgebedError
from orchestrator.doctor import board_checks, network_checks, round_trips, system_checks
from orchestrator.doctor.finding import Finding, fail, ok, warn, worst_first
from orchestrator.doctor.fleet_checks import check_clones
from orchestrator.doctor.probe import ClockReading, Probe, probe, read_clock
from orchestrator.inventory import Host, Inventory
from orchestrator.provision.facts import HostFacts, read_facts
from orchestrator.provision.wheel import own_wheel
from orchestrator.remote.base import Remote
from orchestrator.remote.unreachable import Unreachable

MAX_THREADS = 32

Connect = Callable[[Host], Remote]


@dataclass(slots=True)
class Patient:
    """A host that is examined.

    Attributes:
        remote: connected, unless ``problem``.
        problem: why it could not be asked.
        connect_s: how long connecting took.
    """

    host: Host
    remote: Remote | None = None
    facts: HostFacts | None = None
    probe: Probe = field(default_factory=lambda: Probe({}))
    clock: ClockReading | None = None
    connect_s: float = 0.0
    problem: str = ""

    @property
    def is_local(self) -> bool:
        """It is this very machine."""
        return self.host.connection == "local"

    @property
    def python(self) -> str | None:
        """An interpreter of the host; None when it has none."""
        if self.is_local:
            return sys.executable
        if self.facts is None:
            return None
        if self.facts.current_python:
            return f"{self.facts.root_path}/current/bin/python"
        return next((each.path for each in self.facts.pythons), None)


def examine(inventory: Inventory, connect: Connect) -> dict[str, list[Finding]]:
    """Examine every host; one that cannot be reached does not stop the others.

    Args:
        inventory: the hosts.
        connect: makes the `Remote` of a host; not connected yet. What it raises is that host's finding.

    Returns:
        Findings by host, in the inventory's order; the worst first.
    """
    patients = [Patient(host) for host in inventory.hosts]
    with ThreadPoolExecutor(min(MAX_THREADS, len(patients)), "check") as pool:
        try:
            list(pool.map(lambda patient: _ask(patient, connect), _one_per_machine(patients)))
            _share_local(patients)
            wheel = own_wheel().sha256
            found = {patient.host.name: _findings(patient, inventory, wheel) for patient in patients}
            remote = {each.host.name: each.probe for each in patients if not each.problem and not each.is_local}
            for name, more in check_clones(remote).items():
                found[name] += more
            for name, finding in _round_trips(patients, pool):
                found[name].append(finding)
        finally:
            for patient in patients:
                if patient.remote is not None:
                    with suppress(EdgebedError):
                        patient.remote.close()
    return {name: worst_first(findings) for name, findings in found.items()}


def _one_per_machine(patients: list[Patient]) -> list[Patient]:
    """Of the hosts that are this machine only the first: they all would say the same, and slow each other down."""
    local = [each for each in patients if each.is_local]
    return [*local[:1], *(each for each in patients if not each.is_local)]


def _share_local(patients: list[Patient]) -> None:
    local = [each for each in patients if each.is_local]
    for each in local[1:]:
        first = local[0]
        each.remote, each.facts, each.probe, each.clock = first.remote, first.facts, first.probe, first.clock
        each.problem = first.problem


def _ask(patient: Patient, connect: Connect) -> None:
    begin_s = time.perf_counter()
    try:
        patient.remote = connect(patient.host)
        patient.remote.connect()
        patient.connect_s = time.perf_counter() - begin_s
        if not patient.is_local:
            patient.clock = read_clock(patient.remote)
        patient.facts = read_facts(patient.remote, patient.host)
        patient.probe = probe(patient.remote)
    except Unreachable as error:
        patient.problem = error.detail
    except EdgebedError as error:
        patient.problem = str(error)


def _findings(patient: Patient, inventory: Inventory, wheel_sha256: str) -> list[Finding]:
    if patient.problem or patient.facts is None:
        return [_unreachable(patient)]
    host, facts, said = patient.host, patient.facts, patient.probe
    board = inventory.boards[host.board]
    peers = [] if host.role == "edge_server" else [each.address for each in inventory.edge_servers]
    found: list[Finding | None] = [
        _reached(patient),
        None if said.is_whole else warn("probe", "the host ended the check's script half-way", "run the check again"),
        system_checks.check_architecture(facts),
        system_checks.check_disk(facts, said),
        *system_checks.check_storage(said),
        board_checks.check_board(host, board, said),
        board_checks.check_throttling(said),
        board_checks.check_clock_rate(said),
        board_checks.check_governor(said),
        board_checks.check_temperature(board, said),
        *board_checks.check_meter(host, said),
        system_checks.check_ports(host, said, is_held=facts.lease is not None),
    ]
    if not patient.is_local:
        found += [
            system_checks.check_python(facts),
            system_checks.check_sudo(said),
            network_checks.check_clock(patient.clock),
            network_checks.check_clock_sync(said),
            *network_checks.check_wifi(said, peers),
            system_checks.check_version(facts, wheel_sha256),
            system_checks.check_lease(facts),
        ]
    return [each for each in found if each is not None]


def _reached(patient: Patient) -> Finding:
    if patient.is_local:
        return ok("reachable", "this machine")
    trip = "" if patient.clock is None else f", a command takes {2e3 * patient.clock.error_s:.1f} ms"
    who = "" if patient.facts is None else f" as {patient.facts.user}"
    return ok("reachable", f"by SSH{who} in {1e3 * patient.connect_s:.0f} ms{trip}")


def _unreachable(patient: Patient) -> Finding:
    # An error that says what to do says it after a semicolon, or as a question.
    evidence, _, fix = patient.problem.partition("; ")
    host = patient.host
    port = "" if host.ssh_port is None else f" -p {host.ssh_port}"
    user = "" if host.user is None else f"{host.user}@"
    return fail("reachable", evidence, fix.strip() or f"try `ssh{port} {user}{host.address}` by hand")


def _round_trips(patients: list[Patient], pool: ThreadPoolExecutor) -> list[tuple[str, Finding]]:
    """Round trips from every device to every edge server, a few devices at a time."""
    there = [each for each in patients if not each.problem and each.python is not None]
    devices = [each for each in there if each.host.role == "device"]
    found: list[tuple[str, Finding]] = []
    for server in (each for each in there if each.host.role == "edge_server"):
        # Devices that are processes of the edge server's own machine have no way to it.
        clients = [each for each in devices if not (each.is_local and server.is_local)]
        if clients:
            found += _to_server(server, clients, pool)
    return found


def _to_server(server: Patient, clients: list[Patient], pool: ThreadPoolExecutor) -> list[tuple[str, Finding]]:
    name = server.host.name
    assert server.remote is not None
    assert server.python is not None
    address = _address_of(server, clients)
    taken = server.host.port in system_checks.listening_ports(server.probe)
    port = 0 if taken else server.host.port
    try:
        echo = round_trips.start_echo(server.remote, server.python, address, port, len(clients))
    except EdgebedError as error:
        finding = warn("round_trip", str(error).partition("\n")[0], f"see whether {name} may listen at {address}")
        return [(name, finding)]

    def measure(client: Patient) -> tuple[str, Finding]:
        assert client.remote is not None
        assert client.python is not None
        measured = round_trips.measure(client.remote, client.python, echo)
        return client.host.name, network_checks.check_round_trips(name, measured)

    found: list[tuple[str, Finding]] = []
    for first in range(0, len(clients), round_trips.AT_ONCE):
        found += pool.map(measure, clients[first : first + round_trips.AT_ONCE])
    return found


def _address_of(server: Patient, clients: list[Patient]) -> str:
    """Where devices find the edge server: where SSH found it, or, for this machine, where their SSH came from."""
    if not server.is_local:
        said = server.probe.text("ssh").split()
        return said[2] if len(said) == 4 else server.host.address
    for client in clients:
        said = client.probe.text("ssh").split()
        if len(said) == 4:
            return said[0]
    return "127.0.0.1"
