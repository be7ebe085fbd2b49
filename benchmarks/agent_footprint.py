"""What a device agent takes from its board: memory with the model loaded, and CPU while it has nothing to do.

A real agent process, with this process as its controller: first it idles, then it prepares a cell of `digits`, runs it
(every task on the device) and idles again. Limits: 110 MB resident, 1 % of a core idle.

    python -m benchmarks.agent_footprint [--seconds 8] [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq

from benchmarks.machine import machine
from edgebed.clock import MonotonicClock
from edgebed.configuration import DeviceConfig, Liveness, PeerAddress, PeerKey, config_bytes
from edgebed.metering.board import load_board
from edgebed.metering.cpu import process_cpu_of
from edgebed.protocol.cells import CellSpec, cell_to_plain
from edgebed.protocol.codec import control_headers
from edgebed.protocol.front import Context, Front
from edgebed.protocol.messages import (
    Acknowledge,
    ControlMessage,
    Prepare,
    Ready,
    Records,
    Role,
    Start,
    Status,
    Stop,
)
from edgebed.protocol.security import AllowList, Gatekeeper, make_key_pair, write_key_pair

LIMIT_RESIDENT_BYTES = 110e6
LIMIT_IDLE_SHARE = 0.01
PATIENCE_S = 120.0
BOARD = Path(__file__).parents[1] / "inventory" / "boards" / "raspberry-pi-4b.yaml"
EPOCH_S = 0.5


@dataclass
class Boss:
    """The controller of one agent: answers it, and remembers what it said."""

    folder: Path
    said: list[ControlMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context: Context = zmq.Context()
        own, agent = make_key_pair(), make_key_pair()
        allow = AllowList.from_config([PeerKey("pi-1", Role.DEVICE.value, agent.public)])
        self.gatekeeper = Gatekeeper(self.context, allow)
        self.front: Front[ControlMessage] = Front(
            context=self.context,
            bind="tcp://127.0.0.1:0",
            keys=own,
            allow=allow,
            decoder=control_headers,
            clock=MonotonicClock(),
            limits=Liveness(),
            name="controller",
            instance="boss-1",
            roles=frozenset({Role.DEVICE}),
        )
        write_key_pair(self.folder / "agent.key", agent)
        config = DeviceConfig(
            name="pi-1",
            state_dir=str(self.folder),
            secret_key_file=str(self.folder / "agent.key"),
            board=msgspec.to_builtins(load_board(BOARD)),
            controller=PeerAddress("controller", self.front.endpoint, own.public),
            # Nobody is there: the agent keeps trying, which is part of what idling costs.
            servers=[PeerAddress("edge", "tcp://127.0.0.1:9", own.public)],
        )
        (self.folder / "device_agent.json").write_bytes(config_bytes(config))
        command = [sys.executable, "-m", "device_agent", "--config", str(self.folder / "device_agent.json")]
        with (self.folder / "agent.log").open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def turn(self) -> None:
        """Answer what has come; every row is acknowledged."""
        self.front.socket.poll(20)
        for session, message, _ in self.front.receive():
            if isinstance(message, Records):
                self.front.send(session, Acknowledge(message.member, message.last))
            self.said.append(message)
        self.front.expire(time.monotonic())

    def until(self, done: Callable[[], bool]) -> None:
        """Go on until something is so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not done():
            assert self.process.poll() is None, (self.folder / "agent.log").read_text()
            assert time.monotonic() < deadline_s, "the agent does not answer"
            self.turn()

    def tell(self, message: ControlMessage) -> None:
        """Say something to the agent."""
        self.front.send(self.front.by_name["pi-1"], message)

    def cpu_share(self, seconds: float) -> float:
        """CPU of the agent over a while, as a share of one core."""
        start_cpu_s, start_s = process_cpu_of(self.process.pid) or 0.0, time.monotonic()
        self.until(lambda: time.monotonic() - start_s >= seconds)
        return ((process_cpu_of(self.process.pid) or 0.0) - start_cpu_s) / (time.monotonic() - start_s)

    def resident_bytes(self) -> int:
        """Memory of the agent."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def close(self) -> None:
        """End the agent and this side."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.front.close()
        self.gatekeeper.close()
        self.context.term()


def cell(serial: int, arrivals: dict[str, Any], epochs: int) -> CellSpec:
    """A cell in which the agent does everything itself."""
    return CellSpec(
        run_id="footprint",
        plan_hash="",
        cell_id=f"footprint-{serial}",
        serial=serial,
        attempt=1,
        policy="all_local",
        policy_name="all_local",
        placement="device",
        seed=1,
        workload="digits",
        arrivals=arrivals,
        epoch_s=EPOCH_S,
        epochs=epochs,
        devices=["pi-1"],
        servers=["edge"],
    )


def run_cell(boss: Boss, spec: CellSpec, measured_s: float = 0.0) -> float:
    """Run a cell to its end; the CPU share over ``measured_s`` of it."""
    boss.tell(Prepare(spec.serial, cell_to_plain(spec)))
    boss.until(lambda: any(isinstance(m, Ready) and m.serial == spec.serial for m in boss.said))
    boss.tell(Start(spec.serial, time.monotonic() + 0.1, 0.0))
    share = boss.cpu_share(measured_s) if measured_s else 0.0
    boss.until(
        lambda: any(isinstance(m, Status) and m.serial == spec.serial and m.state == "finished" for m in boss.said)
    )
    boss.tell(Stop(spec.serial, "complete"))
    boss.until(lambda: any(isinstance(m, Status) and m.state == "idle" and m.unsent == 0 for m in boss.said[-3:]))
    return share


def measure(seconds: float) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints."""
    with tempfile.TemporaryDirectory() as name:
        boss = Boss(Path(name))
        try:
            boss.until(lambda: "pi-1" in boss.front.by_name)
            boss.cpu_share(1.0)  # what starting up leaves to do
            idle_share = boss.cpu_share(seconds)
            busy = {"kind": "periodic", "period_s": 0.25, "frames": 4, "deadline_s": 1.0}
            run_cell(boss, cell(1, busy, 8))
            resident = boss.resident_bytes()
            rare = {"kind": "periodic", "period_s": seconds + 1.0, "frames": 1, "deadline_s": 1.0}
            metering_share = run_cell(boss, cell(2, rare, round((seconds + 2.0) / EPOCH_S)), seconds)
        finally:
            boss.close()
    return {
        "benchmark": "agent_footprint",
        "resident_bytes": resident,
        "idle_share": idle_share,
        "cell_without_work_share": metering_share,
        "limit_resident_bytes": LIMIT_RESIDENT_BYTES,
        "limit_idle_share": LIMIT_IDLE_SHARE,
        "within_limit": resident <= LIMIT_RESIDENT_BYTES and idle_share <= LIMIT_IDLE_SHARE,
    } | machine()


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Memory and idle CPU of a device agent")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to watch it idle")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.seconds)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"device agent: {found['resident_bytes'] / 1e6:.0f} MB resident with the model loaded "
            f"(limit {LIMIT_RESIDENT_BYTES / 1e6:.0f}), {found['idle_share']:.2%} of a core idle "
            f"(limit {LIMIT_IDLE_SHARE:.0%}), {found['cell_without_work_share']:.2%} in a cell without work, "
            "all samples and rows included\n"
            f"  {'within' if found['within_limit'] else 'ABOVE THE'} limit; {found['machine']}; "
            f"load {found['load_1min']}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
