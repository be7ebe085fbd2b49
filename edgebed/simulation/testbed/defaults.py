"""A profile where nobody has measured: from what boards, hosts file and workload state.

It is good for trying things out and for tests; its latencies are of the right order and no better. `edgebed calibrate`
fits one to runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edgebed.errors import BadInput
from edgebed.metering.board import Board
from edgebed.simulation.testbed.hosts import HostFacts
from edgebed.simulation.testbed.profile import (
    Decider,
    DeviceProfile,
    Link,
    Power,
    Profile,
    ServerProfile,
    ServiceTime,
    Source,
)
from workloads.base import Demand

REFERENCE_HZ = 1.5e9
"""Cycles a second that a task gets on a Raspberry Pi 4B, the board that stated speeds are relative to."""

LOCAL_HZ = 2.5e9
"""What a generic PC gives; assumed."""

LOCAL_DELAY_S = 0.0008
"""One way between two programs of one machine; assumed, from runs on local hosts."""

NETWORK_DELAY_S = 0.004
"""One way over a wireless network; assumed: a round trip of 8 ms."""

TICK_DELAY_S = 0.003
"""From a tick until devices are heard and the controller decides; assumed, from runs on local hosts."""

POLICY_S = 0.0002
"""What a heuristic takes to decide; assumed, from runs on local hosts."""

STATED = (
    "no profile was given: service times are those that boards and workload state, links those of the hosts file, "
    "without variation; `edgebed calibrate` fits a profile to runs"
)


class StatedHost(HostFacts, Protocol):
    """What a hosts file says of a host, as far as a stated profile needs it."""

    @property
    def board(self) -> str:
        """Name of its board."""
        ...

    @property
    def connection(self) -> str:
        """``local`` or ``ssh``."""
        ...

    @property
    def slowdown(self) -> float:
        """How many times slower than it is it appears."""
        ...


def default_profile(
    workload: str,
    demand: Demand,
    devices: Sequence[StatedHost],
    servers: Sequence[StatedHost],
    boards: Mapping[str, Board],
    *,
    local_board: str = "generic-x86",
    model_sha256: str = "",
    accuracy: float | None = None,
) -> Profile:
    """The profile that boards, hosts and workload state.

    A frame takes ``cycles / speed`` seconds, times the host's slowdown. A host of this machine has the speed of
    ``local_board``, whatever board it stands for; another host that of its own board, `board_speed_hz`.

    Args:
        workload: its name.
        demand: what a frame of it costs.
        devices: of the hosts file.
        servers: of the hosts file.
        boards: by name; all that hosts are.
        local_board: what this machine is taken for; a generic PC's clock when it is not among the boards.
        model_sha256: of the workload's model; empty: it has none.
        accuracy: share of frames that its card promises; None: not known.

    Raises:
        BadInput: a host is a board that is not there.
    """
    local_hz = boards[local_board].nominal_hz if local_board in boards else LOCAL_HZ
    stated = _Stated(demand, boards, local_hz, accuracy)
    local = all(host.connection == "local" for host in devices)
    one_way_s = LOCAL_DELAY_S if local else NETWORK_DELAY_S
    return Profile(
        workload=workload,
        model_sha256=model_sha256,
        cycles_per_frame=demand.cycles_per_frame,
        frame_bytes=[demand.bytes_per_frame],
        devices={host.name: stated.device(host) for host in devices},
        servers={host.name: stated.server(host) for host in servers},
        deciders={
            "controller": Decider(delay_s=[TICK_DELAY_S + 2 * one_way_s], compute_s=[POLICY_S]),
            "device": Decider(delay_s=[POLICY_S], compute_s=[POLICY_S]),
        },
        source=Source(kind="stated", text=STATED),
    )


class _Stated:
    """Makes hosts; those that are alike are the same object, so that ten thousand of them cost no more than one."""

    def __init__(self, demand: Demand, boards: Mapping[str, Board], local_hz: float, accuracy: float | None) -> None:
        self._demand, self._boards, self._local_hz, self._accuracy = demand, boards, local_hz, accuracy
        self._devices: dict[tuple[object, ...], DeviceProfile] = {}
        self._servers: dict[tuple[object, ...], ServerProfile] = {}

    def device(self, host: StatedHost) -> DeviceProfile:
        """A device."""
        key = (host.board, host.connection, host.slowdown)
        if key not in self._devices:
            way_s = LOCAL_DELAY_S if host.connection == "local" else NETWORK_DELAY_S
            link = Link(uplink_delay_s=[way_s], downlink_s=[way_s], refusal_s=[2 * way_s], round_trip_s=2 * way_s)
            board = _board(host, self._boards)
            self._devices[key] = DeviceProfile(
                board=board.name,
                compute=self._compute(host),
                accuracy=self._accuracy,
                power=power_of(board),
                link=link,
            )
        return self._devices[key]

    def server(self, host: StatedHost) -> ServerProfile:
        """An edge server."""
        key = (host.board, host.connection, host.slowdown)
        if key not in self._servers:
            board = _board(host, self._boards)
            self._servers[key] = ServerProfile(
                board=board.name, compute=self._compute(host), accuracy=self._accuracy, power=power_of(board)
            )
        return self._servers[key]

    def _compute(self, host: StatedHost) -> ServiceTime:
        speed_hz = self._local_hz if host.connection == "local" else board_speed_hz(_board(host, self._boards))
        # Waiting to appear slower is no work of the processor, and counts as busy all the same.
        return ServiceTime(
            seconds_per_frame=self._demand.cycles_per_frame / speed_hz * host.slowdown, cpu_share=1.0 / host.slowdown
        )


def board_speed_hz(board: Board) -> float:
    """Cycles a second that one task gets: the stated speed relative to a Raspberry Pi 4B, else the clock."""
    if board.relative_speed_ratio is None:
        return board.nominal_hz
    return board.relative_speed_ratio * REFERENCE_HZ


def power_of(board: Board) -> Power:
    """A board's power model, as a profile stores it."""
    return Power(
        cores=board.cores,
        idle_w=board.idle_w,
        max_w=board.max_w,
        transmit_w=board.transmit_w,
        compute_error_fraction=board.marginal_error_fraction,
        transmit_error_fraction=board.transmit_error_fraction,
        source=board.energy_source.removeprefix("estimated:"),
    )


def _board(host: StatedHost, boards: Mapping[str, Board]) -> Board:
    if host.board not in boards:
        raise BadInput(f"{host.name} is a {host.board!r}; the boards that are known: {', '.join(boards)}")
    return boards[host.board]
