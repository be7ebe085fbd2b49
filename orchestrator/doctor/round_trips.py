"""Round trips from a device to an edge server, measured by the hosts' own Python over TCP.

An echo server is started on the edge server's host, on its port if that is free, and ends by itself. It answers only
who knows this check's token, and only small messages: for the seconds that it lives it listens on the network.
"""

from __future__ import annotations

import secrets
import shlex
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from edgebed.errors import EdgebedError, RemoteError
from orchestrator.remote.base import Remote

ECHOES = 100
AT_ONCE = 4
"""Clients that measure at the same time: many at once would measure each other."""
CLIENT_LIVES_S = 10.0
MESSAGE_BYTES = 64

# Prints where it listens, then leaves a child behind that serves. Any Python 3 will do.
_SERVER = """
import os, socket, sys, threading, time
token, address, port, expected, lives_s = sys.argv[1].encode(), *sys.argv[2:4], *map(float, sys.argv[4:6])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    listener.bind((address, int(port)))
except OSError as error:
    sys.exit(str(error))
listener.listen(64)
print(listener.getsockname()[1], flush=True)
if os.fork():
    os._exit(0)
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
end_s = time.monotonic() + lives_s
served = []
def serve(connection):
    with connection:
        try:
            connection.settimeout(2.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if connection.recv(len(token), socket.MSG_WAITALL) != token:
                return
            while time.monotonic() < end_s:
                data = connection.recv(4096)
                if not data:
                    break
                connection.sendall(data)
        except OSError:
            pass
        served.append(1)
while time.monotonic() < end_s and len(served) < expected:
    listener.settimeout(0.2)
    try:
        connection, _ = listener.accept()
    except OSError:
        continue
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""

# Prints how long each echo took, in microseconds.
_CLIENT = """
import socket, sys, time
token, address, port, echoes, size = sys.argv[1].encode(), *sys.argv[2:4], *map(int, sys.argv[4:6])
try:
    with socket.create_connection((address, int(port)), 4.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(token)
        end_s = time.monotonic() + 4.0
        times = []
        while len(times) < echoes and time.monotonic() < end_s:
            begin = time.perf_counter_ns()
            connection.sendall(b"e" * size)
            left = size
            while left:
                data = connection.recv(left)
                if not data:
                    sys.exit("the echo server closed the connection")
                left -= len(data)
            times.append((time.perf_counter_ns() - begin) // 1000)
except OSError as error:
    sys.exit(str(error))
print(*times)
"""


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Round trips to an edge server, or why there are none.

    Attributes:
        endpoint: address and port. count: echoes that were timed.
        problem, fix: empty when it was measured.
    """

    endpoint: str
    count: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class EchoServer:
    """An echo server that runs on an edge server's host.

    Attributes:
        token: what a client has to say first.
    """

    address: str
    port: int
    token: str

    @property
    def endpoint(self) -> str:
        """For people."""
        return f"{self.address}:{self.port}"


def start_echo(remote: Remote, python: str, address: str, port: int, clients: int) -> EchoServer:
    """Start an echo server on a host; it ends by itself.

    Args:
        remote: the edge server's host, connected.
        python: an interpreter of the host.
        address: where devices reach the host.
        port: where to listen; 0 picks one.
        clients: how many will come.

    Raises:
        RemoteError: it could not listen there, or the host was lost.
    """
    token = secrets.token_hex(8)
    # It ends when every client has been served, and at the latest when all of them must have given up.
    lives_s = CLIENT_LIVES_S * (1 + -(-clients // AT_ONCE))
    command = _command(python, _SERVER, token, address, port, clients, lives_s)
    told = remote.execute(command).checked(f"no echo server at {address} port {port}").text
    if not told.isdigit():
        raise RemoteError(remote.host, "the echo server", f"it said {told[:100]!r} instead of its port")
    return EchoServer(address, int(told), token)


def measure(remote: Remote, python: str, server: EchoServer) -> RoundTrips:
    """Time echoes from a host to an echo server. Whatever fails is in the answer."""
    command = _command(python, _CLIENT, server.token, server.address, server.port, ECHOES, MESSAGE_BYTES)
    try:
        done = remote.execute(command, timeout_s=CLIENT_LIVES_S)
    except EdgebedError as error:
        return RoundTrips(server.endpoint, problem=str(error), fix="see whether the host is still there")
    if done.status != 0:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"status {done.status}"
        fix = f"let devices reach {server.endpoint}: same network, no firewall, no client isolation of the access point"
        return RoundTrips(server.endpoint, problem=why, fix=fix)
    return summarise(server.endpoint, (int(each) for each in done.text.split()))


def summarise(endpoint: str, times_us: Iterable[int]) -> RoundTrips:
    """Percentiles of round trips, by the nearest rank."""
    ordered = sorted(times_us)
    if not ordered:
        return RoundTrips(endpoint, problem="no echo came back", fix="try again; the network loses everything")
    p50, p99 = (ordered[max(0, -(-len(ordered) * percent // 100) - 1)] * 1e-6 for percent in (50, 99))
    return RoundTrips(endpoint, len(ordered), p50, p99)


def numeric_address(address: str) -> str:
    """An address as numbers, so that a device need not know the orchestrator's names.

    Raises:
        OSError: nobody knows the name.
    """
    return str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])


def _command(python: str, script: str, *arguments: object) -> str:
    return " ".join((shlex.quote(python), "-I", "-c", shlex.quote(script), *(shlex.quote(str(a)) for a in arguments)))
