"""What a task pays for being a task: the agent's link code to the edge server and back, against a bare echo.

One task of 50 KB after another, an executor that takes no time, 200 B back; CURVE, validation, heartbeats, samples,
energy and stage stamps on. The reference carries the same bytes over the same kind of socket and does nothing else
(`benchmarks.bare`). Blocks of both alternate. Limits: 1.7 times the reference at the median, 2.0 at the 99th
percentile, by the median over the segments.

    python -m benchmarks.offload_overhead [--segments 20] [--tasks 500] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from benchmarks.bare import BareEcho
from benchmarks.machine import Bystanders, machine
from device_agent.stages import edge_round_trip
from device_agent.uplink import Uplink, Upload
from edge_server.testing import ServerUnderTest, cell_for
from edgebed.metering.board import load_board
from edgebed.protocol.link import Link
from edgebed.protocol.messages import TaskMessage, TaskResult
from workloads.base import pack_clip

PAYLOAD_BYTES = 50_000
REPLY_BYTES = 200
BLOCK = 20
"""Tasks in a row before the other side's turn."""

LIMIT_P50, LIMIT_P99 = 1.7, 2.0
LEAST_TASKS = 5000
BOARD = Path(__file__).parents[1] / "inventory" / "boards" / "generic-x86.yaml"


class Agent:
    """A device's side of offloading, as the device agent does it, with nothing else to do meanwhile."""

    def __init__(self, link: Link[TaskMessage], serial: int) -> None:
        self._link = link
        self._uplink = Uplink(serial, link.send)
        self._poller = zmq.Poller()
        link.register(self._poller)
        self._numbers = itertools.count()
        self._payload = pack_clip([os.urandom(PAYLOAD_BYTES - 8)])
        self.outside_s = 0.0

    def task(self) -> float:
        """Offload a task; the seconds from handing it to the uplink until its stages are known."""
        clock = self._link.clock
        begin_s = clock.now_s()
        upload = Upload(f"cell-1-d0-{next(self._numbers)}", len(self._payload), 1, 0, lambda: self._payload)
        self._uplink.add(upload)
        self._uplink.advance(clock.now_s())
        while True:
            now_s = clock.now_s()
            self._link.tick(now_s)
            is_signalled = bool(self._poller.poll(max(0, int((self._link.due_s - now_s) * 1000) + 1)))
            for message, _ in self._link.receive(is_signalled=is_signalled):
                if isinstance(message, TaskResult):
                    return self._stages(upload, message, begin_s)

    def _stages(self, upload: Upload, result: TaskResult, begin_s: float) -> float:
        now_s, offset = self._link.clock.now_s(), self._link.offset
        assert upload.started_s is not None
        edge_round_trip(begin_s, upload.started_s, now_s, result, offset.offset_s, offset.error_s)
        return self._link.clock.now_s() - begin_s


def bare_trip(socket: zmq.Socket[bytes], payload: bytes) -> float:
    """One round trip to the reference, in seconds."""
    begin_s = time.monotonic()
    socket.send(payload)
    socket.recv()
    return time.monotonic() - begin_s


def measure(segments: int, tasks: int) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"board": msgspec.to_builtins(load_board(BOARD))}
        with BareEcho(folder, REPLY_BYTES) as bare, ServerUnderTest(folder, **settings) as server:
            server.start()
            server.prepare(cell_for(1, "instant"))
            server.begin(1)
            agent = Agent(server.connected(), 1)
            socket = bare.connect(server.context)
            payload = os.urandom(PAYLOAD_BYTES)
            assert server.process is not None
            bystanders = Bystanders([bare.process.pid, server.process.pid])
            found = [
                _segment(lambda: bare_trip(socket, payload), agent.task, tasks, server.listen)
                for _ in range(segments + 1)
            ]
            busy = bystanders.share()
            socket.close()
    # The first segment warms everything up.
    return _summary(found[1:], tasks) | {"others_cpu_share": busy} | machine()


def _segment(
    bare: Callable[[], float], ours: Callable[[], float], tasks: int, between: Callable[[], None]
) -> tuple[list[float], list[float]]:
    bare_s: list[float] = []
    ours_s: list[float] = []
    for _ in range(tasks // BLOCK):
        between()
        bare_s += [bare() for _ in range(BLOCK)]
        ours_s += [ours() for _ in range(BLOCK)]
    return bare_s, ours_s


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _summary(found: list[tuple[list[float], list[float]]], tasks: int) -> dict[str, Any]:
    p50 = [statistics.median(ours) / statistics.median(bare) for bare, ours in found]
    p99 = [_p99(ours) / _p99(bare) for bare, ours in found]
    summary: dict[str, Any] = {
        "benchmark": "offload_overhead",
        "tasks": sum(len(ours) for _, ours in found),
        "segments": len(found),
        "bare_p50_us": statistics.median(statistics.median(bare) for bare, _ in found) * 1e6,
        "ours_p50_us": statistics.median(statistics.median(ours) for _, ours in found) * 1e6,
        "bare_p99_us": statistics.median(_p99(bare) for bare, _ in found) * 1e6,
        "ours_p99_us": statistics.median(_p99(ours) for _, ours in found) * 1e6,
        "ratio_p50": statistics.median(p50),
        "ratio_p50_range": [min(p50), max(p50)],
        "ratio_p99": statistics.median(p99),
        "ratio_p99_range": [min(p99), max(p99)],
        "limit_p50": LIMIT_P50,
        "limit_p99": LIMIT_P99,
    }
    enough = len(found) * tasks >= LEAST_TASKS
    summary["within_limit"] = enough and summary["ratio_p50"] <= LIMIT_P50 and summary["ratio_p99"] <= LIMIT_P99
    return summary


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Overhead of offloading a task, against a bare echo")
    parser.add_argument("--segments", type=int, default=20, help="how many segments")
    parser.add_argument("--tasks", type=int, default=500, help="tasks a segment")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.segments, options.tasks)
    if options.json:
        print(json.dumps(found))
        return 0 if found["within_limit"] else 1
    print(f"offload overhead, {found['tasks']} tasks of {PAYLOAD_BYTES} B in {found['segments']} segments")
    print("            bare us    ours us    ratio  (range over segments)  limit")
    for name in ("p50", "p99"):
        low, high = found[f"ratio_{name}_range"]
        print(
            f"  {name}  {found[f'bare_{name}_us']:11.0f}{found[f'ours_{name}_us']:11.0f}{found[f'ratio_{name}']:9.2f}"
            f"  ({low:.2f} to {high:.2f}){found[f'limit_{name}']:14.1f}"
        )
    print(f"  {'within' if found['within_limit'] else 'ABOVE THE'} limit; {found['machine']}; Python {found['python']}")
    print(f"  others used {found['others_cpu_share']:.2f} of a core; load {found['load_1min']}")
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
