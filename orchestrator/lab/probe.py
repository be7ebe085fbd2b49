"""Probes the lab's links: what a program on a host gets, against what was asked for.

One way delay, exact because all hosts have the machine's clock: small UDP packets, stamped when sent, and by the kernel
when received, so that a busy machine's late programs are not taken for a late link.
Rate: one TCP connection (cubic), which is what a payload takes. A link's rate counts whole Ethernet frames, as netem
does, so the probe gives both: what arrived as payload, and that times the frame's overhead, which is compared.
"""

from __future__ import annotations

import contextlib
import select
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from edgebed.errors import WorkFailed
from orchestrator.lab.kernel import inside_network
from orchestrator.lab.shaping import LinkShape
from orchestrator.lab.spec import Lab, LabHost

PACKETS = 100
PACKET_PERIOD_S = 0.01
WARM_UP_S = 0.7
MEASURE_S = 2.0
PARALLEL_HOSTS = 4

RATE_TOLERANCE = 0.05
DELAY_TOLERANCE_S = 0.001

_STAMP = struct.Struct("!Id")
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; not in Python's socket
_TIMESPEC = struct.Struct("@ll")
_CHUNK = bytes(64 * 1024)
# Of each full frame besides the segment: Ethernet 14, IPv4 20, TCP 20 and its time stamps 12.
_HEADER_BYTES = 14 + 20 + 20 + 12
_LOSS_THAT_SPOILS_TCP = 1e-4


@dataclass(frozen=True, slots=True)
class WayProbe:
    """One direction of a link, as probed.

    Attributes:
        delay_s: median of one way, empty link. None: nothing arrived.
        jitter_s: half the range of it, from its first and last decile, as for a uniform distribution.
        lost: fraction of the small packets.
        goodput_bps: TCP payload; None when not measured.
        rate_bps: the frames that carried it.
    """

    delay_s: float | None
    jitter_s: float | None
    lost: float
    goodput_bps: float | None
    rate_bps: float | None


@dataclass(frozen=True, slots=True)
class LinkProbe:
    """Both directions of a host's link.

    Attributes:
        asked: the shape that the link was to have.
        up: from the host. down: to it.
        problems: where it is not what was asked; empty when it is.
    """

    host: str
    asked: LinkShape
    up: WayProbe
    down: WayProbe
    problems: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def probe_links(lab: Lab, hosts: Iterable[LabHost]) -> list[LinkProbe]:
    """Probe hosts' links against the lab's edge server, a few at once.

    Raises:
        WorkFailed: a host is off.
    """
    peer = next(host for host in lab.hosts if host.role == "edge_server")
    with ThreadPoolExecutor(PARALLEL_HOSTS) as pool:
        return list(pool.map(lambda host: probe_link(lab, host, peer, host.link), hosts))


def probe_link(lab: Lab, host: LabHost, peer: LabHost, asked: LinkShape) -> LinkProbe:
    """Probe a host's link from and to another host, whose own link is a plain cable.

    Args:
        lab: that they are in.
        host: whose link it is.
        peer: the edge server.
        asked: what the link is to be.
    """
    try:
        up = _probe_way(lab, host, peer, asked)
        down = _probe_way(lab, peer, host, asked)
    except OSError as error:
        raise WorkFailed(f"the link of {host.name} cannot be probed: {error}; is the host on?") from error
    problems = (*_problems("up", up, asked), *_problems("down", down, asked))
    return LinkProbe(host.name, asked, up, down, problems)


def _probe_way(lab: Lab, sender: LabHost, receiver: LabHost, asked: LinkShape) -> WayProbe:
    delays_s = _delays(lab, sender, receiver)
    lost = 1 - len(delays_s) / PACKETS
    median_s = statistics.median(delays_s) if delays_s else None
    jitter_s = None
    if len(delays_s) >= PACKETS // 2:
        deciles = statistics.quantiles(delays_s, n=10)
        jitter_s = (deciles[-1] - deciles[0]) / 0.8 / 2
    if not asked.rate_bps or asked.loss > _LOSS_THAT_SPOILS_TCP:
        return WayProbe(median_s, jitter_s, lost, None, None)
    goodput_bps, segment_bytes = _bulk(lab, sender, receiver)
    rate_bps = goodput_bps * (segment_bytes + _HEADER_BYTES) / segment_bytes
    return WayProbe(median_s, jitter_s, lost, goodput_bps, rate_bps)


def _problems(way: str, found: WayProbe, asked: LinkShape) -> Iterable[str]:
    if found.delay_s is None:
        yield f"{way}: nothing arrives"
        return
    # A rate adds the time that the packet itself takes, some tens of microseconds: inside the tolerance.
    if abs(found.delay_s - asked.delay_s) > DELAY_TOLERANCE_S:
        yield f"{way}: delay {found.delay_s * 1e3:.2f} ms, asked {asked.delay_s * 1e3:g} ms"
    if found.rate_bps is not None and abs(found.rate_bps / asked.rate_bps - 1) > RATE_TOLERANCE:
        yield f"{way}: rate {found.rate_bps / 1e6:.2f} Mbit/s, asked {asked.rate_bps / 1e6:g} Mbit/s"


def _delays(lab: Lab, sender: LabHost, receiver: LabHost) -> list[float]:
    """One way delays of small packets, seconds."""
    with contextlib.ExitStack() as stack:
        incoming = _udp(lab, receiver, stack)
        outgoing = _udp(lab, sender, stack)
        address = incoming.getsockname()
        _first_contact(outgoing, incoming, address)
        found: list[float] = []
        next_s = time.monotonic()
        for number in range(PACKETS):
            outgoing.sendto(_STAMP.pack(number, time.time()), address)
            next_s += PACKET_PERIOD_S
            _receive_until(incoming, next_s, found)
        _receive_until(incoming, time.monotonic() + 0.3 + 2 * lab.host(sender.name).link.delay_s, found)
        return found


def _udp(lab: Lab, host: LabHost, stack: contextlib.ExitStack) -> socket.socket:
    with inside_network(lab.network_of(host)):
        made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.bind((host.address, 0))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return made


def _first_contact(outgoing: socket.socket, incoming: socket.socket, address: tuple[str, int]) -> None:
    """Have the hosts find each other (ARP), which is not what is measured."""
    for _ in range(3):
        outgoing.sendto(b"", address)
        if select.select([incoming], [], [], 1.0)[0]:
            break
    with contextlib.suppress(BlockingIOError):
        while True:
            incoming.recv(64)


def _receive_until(incoming: socket.socket, until_s: float, found: list[float]) -> None:
    while (wait_s := until_s - time.monotonic()) > 0:
        if not select.select([incoming], [], [], wait_s)[0]:
            return
        data, notes, _, _ = incoming.recvmsg(64, 64)
        stamps = [each for level, kind, each in notes if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)]
        if len(data) == _STAMP.size and stamps:
            seconds, nanoseconds = _TIMESPEC.unpack(stamps[0][: _TIMESPEC.size])
            found.append(seconds + nanoseconds * 1e-9 - _STAMP.unpack(data)[1])


def _bulk(lab: Lab, sender: LabHost, receiver: LabHost) -> tuple[float, int]:
    """TCP payload in bits a second once the connection is in its stride, and the bytes in a segment."""
    with contextlib.ExitStack() as stack:
        with inside_network(lab.network_of(receiver)):
            listener = stack.enter_context(socket.create_server((receiver.address, 0)))
        with inside_network(lab.network_of(sender)):
            outgoing = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10.0))
        incoming, _ = listener.accept()
        stack.enter_context(incoming)
        incoming.settimeout(10.0)
        is_over = threading.Event()
        thread = threading.Thread(target=_send, args=(outgoing, is_over))
        thread.start()
        try:
            _receive_for(incoming, WARM_UP_S)
            start_s = time.monotonic()
            received = _receive_for(incoming, MEASURE_S)
            elapsed_s = time.monotonic() - start_s
            segment_bytes = outgoing.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        finally:
            is_over.set()
            incoming.close()
            thread.join()
        return received * 8 / elapsed_s, segment_bytes


def _send(outgoing: socket.socket, is_over: threading.Event) -> None:
    with contextlib.suppress(OSError):  # the other side has heard enough
        while not is_over.is_set():
            outgoing.send(_CHUNK)


def _receive_for(incoming: socket.socket, duration_s: float) -> int:
    received = 0
    end_s = time.monotonic() + duration_s
    while time.monotonic() < end_s:
        part = incoming.recv(256 * 1024)
        if not part:
            raise ConnectionResetError("the connection broke off")
        received += len(part)
    return received
