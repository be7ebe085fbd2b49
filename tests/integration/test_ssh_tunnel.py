"""Plain connections through SSH: what a run's orchestrator needs for a controller behind a jump host."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgebed.errors import RemoteError
from orchestrator.remote.retrying import RetryingRemote
from orchestrator.remote.ssh import SshRemote
from orchestrator.remote.tunnel import Tunnel, tunnelling
from tests.integration.sshd import ADDRESS, SshServer, SshServers, free_port

pytestmark = pytest.mark.integration

SIZE_BYTES = 3_000_000


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back all that it gets, one connection after the other."""
    with socket.create_server((ADDRESS, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    stream, _ = server.accept()
                except OSError:
                    return
                with stream:
                    while data := stream.recv(1 << 16):
                        stream.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10.0)


@pytest.fixture
def behind_a_jump(ssh_servers: SshServers, tmp_path: Path) -> Iterator[tuple[SshRemote, SshServer]]:
    gate, host = ssh_servers(), ssh_servers()
    known = host.known_hosts(tmp_path)
    gate.known_hosts(tmp_path)
    remote = SshRemote(host.target(jumps=(gate.target("gate"),)), known)
    remote.connect()
    yield remote, host
    remote.close()


def sent(stream: socket.socket, data: bytes) -> None:
    with suppress(ConnectionError):  # the receiving side says what has come
        stream.sendall(data)


def round_trip(port: int, data: bytes) -> bytes:
    with socket.create_connection((ADDRESS, port), timeout=30.0) as stream:
        sender = threading.Thread(target=sent, args=(stream, data))
        sender.start()
        found = b""
        while len(found) < len(data) and (piece := stream.recv(1 << 16)):
            found += piece
        sender.join(30.0)
        return found


def test_what_goes_in_comes_out_on_the_hosts_side(behind_a_jump: tuple[SshRemote, SshServer], echo: int) -> None:
    remote, _ = behind_a_jump
    tunnel = Tunnel(remote, ADDRESS, echo)
    data = bytes(range(256)) * (SIZE_BYTES // 256)
    assert round_trip(tunnel.port_here, data) == data
    assert round_trip(tunnel.port_here, b"again") == b"again"
    tunnel.close()
    with pytest.raises(OSError, match=r"refused|reset"):
        round_trip(tunnel.port_here, b"closed")


def test_it_is_there_again_when_the_connection_was_lost(behind_a_jump: tuple[SshRemote, SshServer], echo: int) -> None:
    remote, _ = behind_a_jump
    tunnel = Tunnel(remote, ADDRESS, echo)
    assert round_trip(tunnel.port_here, b"before") == b"before"
    remote.close()
    with suppress(ConnectionError):
        assert round_trip(tunnel.port_here, b"nobody") == b"", "a connection that leads nowhere ends"
    remote.connect()
    assert round_trip(tunnel.port_here, b"after") == b"after"
    tunnel.close()


def test_a_port_that_nobody_listens_on(behind_a_jump: tuple[SshRemote, SshServer]) -> None:
    remote, _ = behind_a_jump
    with pytest.raises(RemoteError, match=r"could not be opened .*Connect failed"):
        remote.open_stream(ADDRESS, free_port())


def test_only_a_host_behind_another_needs_one(behind_a_jump: tuple[SshRemote, SshServer], tmp_path: Path) -> None:
    remote, host = behind_a_jump
    assert tunnelling(RetryingRemote(remote)) is remote
    assert tunnelling(SshRemote(host.target(), host.known_hosts(tmp_path))) is None
