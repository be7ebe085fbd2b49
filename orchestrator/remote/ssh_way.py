"""The way to a host's SSH server: a socket, a jump host, or a ProxyCommand."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from contextlib import ExitStack
from typing import Any

import paramiko

from orchestrator.remote.ssh_config import SshTarget
from orchestrator.remote.unreachable import Reason, Unreachable

DEAD_AFTER_S = 60
"""A host that is silent for so long is given up: everything that waits for it ends with an error."""


class PromptSocket(socket.socket):
    """A socket that acknowledges at once what it receives, as long as it ``is_prompt``.

    An SSH server holds its answers back for that until its first session has begun: 40 ms each time.
    """

    is_prompt = hasattr(socket, "TCP_QUICKACK")

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive some."""
        data = super().recv(size, flags)
        if self.is_prompt:
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # the kernel takes it back by and by
        return data


def open_way(target: SshTarget, jump: paramiko.Transport | None, held: ExitStack) -> Any:
    """A stream to the host's SSH server: a socket, or a channel that behaves like one.

    Args:
        target: the host.
        jump: the connection to the last host before it, if there is one.
        held: what has to live as long as the stream.

    Raises:
        Unreachable: why there is no way, and the next step.
    """
    if jump is not None:
        return _forwarded(target, jump)
    if target.proxy_command is not None:
        return _through_command(target, target.proxy_command, held)
    return _connected(target)


def _forwarded(target: SshTarget, jump: paramiko.Transport) -> paramiko.Channel:
    there = (target.address, target.port)
    try:
        return jump.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=target.connect_timeout_s)
    except (paramiko.SSHException, OSError, EOFError) as error:
        via = target.jumps[-1].name
        detail = (
            f"the jump host {via} does not get through to {target.address} port {target.port} ({error}); can it reach "
            "it, and does its sshd have `AllowTcpForwarding yes`?"
        )
        raise Unreachable(target.name, target.command, detail, reason="proxy_failed") from error


def _connected(target: SshTarget) -> socket.socket:
    try:
        found = socket.getaddrinfo(target.address, target.port, target.family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a name
        cause = error.strerror if isinstance(error, OSError) else error
        detail = (
            f"the name {target.address} has no address ({cause}); write its address as ansible_host, or see "
            "to it that `getent hosts` finds the name (names ending in .local need avahi and libnss-mdns)"
        )
        raise Unreachable(target.name, target.command, detail, reason="name_unknown") from error
    failures: list[OSError] = []
    for family, kind, protocol, _, address in found:
        stream = PromptSocket(family, kind, protocol)
        try:
            stream.settimeout(target.connect_timeout_s)
            stream.connect(address)
            _tune(stream)
            return stream
        except OSError as error:
            stream.close()
            failures.append(error)
    raise _not_connected(target, failures[0])


def _not_connected(target: SshTarget, error: OSError) -> Unreachable:
    where = f"{target.address} port {target.port}"
    reason: Reason
    if isinstance(error, ConnectionRefusedError):
        reason = "refused"
        detail = (
            f"{where} refuses the connection; is its SSH server on (sudo systemctl enable --now ssh), on this port?"
        )
    elif isinstance(error, TimeoutError):
        reason = "no_answer"
        detail = (
            f"no answer from {where} within {target.connect_timeout_s:g} s; is it on, in this network, and is that its "
            "address? A firewall may also be silent"
        )
    else:
        reason = "no_route"
        detail = f"no way to {where}: {error.strerror}; is it on, and is this machine in its network?"
    return Unreachable(target.name, target.command, detail, reason=reason)


def _tune(stream: socket.socket) -> None:
    """No delay, and an end to waiting for a host that is gone."""
    # With Nagle's algorithm each command waits for the other end's delayed acknowledgement: 45 ms instead of 2.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": DEAD_AFTER_S * 1000}
    for name, value in settings.items():
        if hasattr(socket, name):  # not every system has them all
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _through_command(target: SshTarget, command: str, held: ExitStack) -> socket.socket:
    """What a ProxyCommand reads and writes; a socket, so that its silence and its end are noticed as any host's."""
    ours, theirs = socket.socketpair()
    held.callback(ours.close)
    said = held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - `held` closes it
    with theirs:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=said,
            start_new_session=True,
        )
    held.callback(_end, process)
    held.push(_Explained(target, command, process, said))
    return ours


class _Explained:
    """Adds what a ProxyCommand has said to the error that it led to."""

    def __init__(self, target: SshTarget, command: str, process: subprocess.Popen[bytes], said: Any) -> None:
        self._target = target
        self._command = command
        self._process = process
        self._said = said

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Unreachable) or error.reason not in ("hung_up", "no_ssh", "no_answer"):
            return
        _end(self._process)
        self._said.seek(0)
        detail = f"the ProxyCommand `{self._command}` gave no connection; try it by hand"
        output = self._said.read().decode(errors="replace")
        command = self._target.command
        raise Unreachable(self._target.name, command, detail, reason="proxy_failed", output=output) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
