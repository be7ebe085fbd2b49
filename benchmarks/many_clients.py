"""Sixty-four devices at one edge server: tasks a second, against a bare CURVE router in the same harness.

Every client has the agent's link code and one task of 1 KB under way at a time; the executor takes no time. The
reference is the same loop over bare DEALER sockets to `benchmarks.bare`. Rounds alternate; a round in which others
used the machine is discarded and counted. Limits: 0.45 of the reference by the median over the rounds, 15,000 tasks a
second, no task lost, and a server that does not grow from round to round.

    python -m benchmarks.many_clients [--rounds 8] [--seconds 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import zmq

from benchmarks.bare import BareEcho
from benchmarks.machine import VERDICTS, Bystanders, conclude, machine
from edge_server.testing import ServerUnderTest, cell_for
from edgebed.protocol.front import Socket
from edgebed.protocol.link import Link
from edgebed.protocol.messages import Offer, TaskMessage, TaskResult
from workloads.base import pack_clip

CLIENTS = 64
PAYLOAD_BYTES = 1024
REPLY_BYTES = 200
LIMIT_SHARE, LIMIT_RATE = 0.45, 15_000
MOST_OTHERS = 0.10
"""Cores that others may use in a round that counts."""
MOST_GROWTH_BYTES = 20e6
"""Of the server between the first round and the last."""


@dataclass(frozen=True, slots=True)
class Round:
    """One while of both sides."""

    bare_rate: float
    rate: float
    others: float


class Clients:
    """The agents' side: every link with one task under way."""

    def __init__(self, server: ServerUnderTest) -> None:
        self._server = server
        self._poller = zmq.Poller()
        self._links: dict[Socket, Link[TaskMessage]] = {}
        for index in range(CLIENTS):
            link = server.connected(f"d{index}")
            link.register(self._poller)
            self._links[link.socket] = link
        self._payload = pack_clip([os.urandom(PAYLOAD_BYTES - 8)])
        self.sent = self.done = 0

    def _offer(self, link: Link[TaskMessage]) -> None:
        self.sent += 1
        assert link.send(Offer(f"cell-1-{self.sent}", 1, len(self._payload), 1), self._payload)

    def run(self, seconds: float) -> float:
        """Tasks a second; every task that was sent is waited for."""
        begin_s, before = time.monotonic(), self.done
        for link in self._links.values():
            self._offer(link)
        end_s = begin_s + seconds
        while self.sent > self.done:
            now_s = time.monotonic()
            assert now_s < end_s + 20.0, f"{self.sent - self.done} tasks are lost"
            self._server.listen()
            for socket, _ in self._poller.poll(100):
                link = self._links[socket]
                for message, _ in link.receive(limit=1, is_signalled=True):
                    assert isinstance(message, TaskResult), message
                    self.done += 1
                    if now_s < end_s:
                        self._offer(link)
                link.tick(now_s)
        return (self.done - before) / (time.monotonic() - begin_s)


class BareClients:
    """The same with bare sockets."""

    def __init__(self, echo: BareEcho, context: zmq.Context[Socket]) -> None:
        self._poller = zmq.Poller()
        self._sockets = [echo.connect(context) for _ in range(CLIENTS)]
        for socket in self._sockets:
            self._poller.register(socket, zmq.POLLIN)
        self._payload = os.urandom(PAYLOAD_BYTES)

    def run(self, seconds: float) -> float:
        """Round trips a second."""
        begin_s, done, waiting = time.monotonic(), 0, CLIENTS
        for socket in self._sockets:
            socket.send(self._payload)
        while waiting:
            now_s = time.monotonic()
            for socket, _ in self._poller.poll(100):
                socket.recv()
                done += 1
                if now_s < begin_s + seconds:
                    socket.send(self._payload)
                else:
                    waiting -= 1
        return done / (time.monotonic() - begin_s)

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._sockets:
            socket.close()


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            BareEcho(folder, REPLY_BYTES) as echo,
            ServerUnderTest(folder, CLIENTS, queue_tasks=4 * CLIENTS) as server,
        ):
            server.start()
            server.prepare(cell_for(1, "instant", devices=[f"d{index}" for index in range(CLIENTS)]))
            server.begin(1)
            clients, bare = Clients(server), BareClients(echo, server.context)
            assert server.process is not None
            process = psutil.Process(server.process.pid)
            bystanders = Bystanders([echo.process.pid, server.process.pid])
            bare.run(0.5)
            clients.run(0.5)
            first_bytes = process.memory_info().rss
            found = []
            for _ in range(rounds):
                bystanders.restart()
                found.append(Round(bare.run(seconds), clients.run(seconds), bystanders.share()))
            grown_bytes = process.memory_info().rss - first_bytes
            bare.close()
    return _summary(found, clients, first_bytes, grown_bytes) | machine()


def _summary(found: list[Round], clients: Clients, first_bytes: int, grown_bytes: int) -> dict[str, Any]:
    kept = [one for one in found if one.others <= MOST_OTHERS]
    enough, counted = conclude(kept, found)
    shares = [one.rate / one.bare_rate for one in counted]
    rate = statistics.median(one.rate for one in counted)
    good = statistics.median(shares) >= LIMIT_SHARE and rate >= LIMIT_RATE and grown_bytes <= MOST_GROWTH_BYTES
    return {
        "benchmark": "many_clients",
        "rounds": len(found),
        "discarded": len(found) - len(kept),
        "tasks": clients.sent,
        "lost": clients.sent - clients.done,
        "tasks_per_s": rate,
        "bare_per_s": statistics.median(one.bare_rate for one in counted),
        "share": statistics.median(shares),
        "share_range": [min(shares), max(shares)],
        "server_bytes": first_bytes,
        "server_grown_bytes": grown_bytes,
        "limit_share": LIMIT_SHARE,
        "limit_tasks_per_s": LIMIT_RATE,
        "within_limit": good if enough else None,
    }


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Many clients at one edge server")
    parser.add_argument("--rounds", type=int, default=8, help="how many rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each side's turn")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found))
    else:
        low, high = found["share_range"]
        print(
            f"{CLIENTS} clients: {found['tasks_per_s']:,.0f} tasks/s (limit {LIMIT_RATE:,}), {found['share']:.2f} "
            f"({low:.2f} to {high:.2f}) of the bare router's {found['bare_per_s']:,.0f} (limit {LIMIT_SHARE})\n"
            f"  {found['tasks']} tasks, {found['lost']} lost; server {found['server_bytes'] / 1e6:.0f} MB, grown by "
            f"{found['server_grown_bytes'] / 1e6:.1f} MB; {found['discarded']} of {found['rounds']} rounds disturbed\n"
            f"  {VERDICTS[found['within_limit']]}; {found['machine']}; load {found['load_1min']}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
