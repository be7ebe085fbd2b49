"""A connection to a host's SSH server: the way there, its host key checked, oneself let in."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from orchestrator.remote.host_keys import HostKey, Known, KnownHosts
from orchestrator.remote.ssh_auth import authenticate
from orchestrator.remote.ssh_config import SshTarget
from orchestrator.remote.ssh_way import PromptSocket, open_way
from orchestrator.remote.unreachable import Reason, Unreachable

BANNER_TIMEOUT_S = 15.0
HANDSHAKE_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 15
_HANDSHAKES_AT_ONCE = 4
# Without a handler Python prints what paramiko logs, tracebacks included, between our own sentences.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # the key's kind does not name the signature's hash
# Servers drop newcomers beyond 10 that have not said who they are (MaxStartups): one jump host for 32 devices.
_gates: defaultdict[tuple[str, int], threading.Semaphore] = defaultdict(
    lambda: threading.Semaphore(_HANDSHAKES_AT_ONCE)
)
_gates_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Link:
    """A connection.

    Attributes:
        host_key: what the host has shown.
        is_new: the key was pinned just now.
    """

    transport: paramiko.Transport
    host_key: HostKey
    is_new: bool
    _held: ExitStack

    @property
    def is_alive(self) -> bool:
        """Whether it can be used; what has silently gone counts as alive until `ssh_way.DEAD_AFTER_S`."""
        return self.transport.is_active()

    def open_session(self, timeout_s: float, window_bytes: int | None = None) -> paramiko.Channel:
        """A channel for a command; ``window_bytes`` of output may be on their way without having been taken.

        Raises:
            paramiko.SSHException, OSError, EOFError: the host opens none, is silent, or is gone.
        """
        channel = self.transport.open_session(window_size=window_bytes, timeout=timeout_s)
        if isinstance(self.transport.sock, PromptSocket):
            self.transport.sock.is_prompt = False
        return channel

    def close(self) -> None:
        """End it, and the way to it."""
        self._held.close()


def open_link(target: SshTarget, known_hosts: KnownHosts) -> Link:
    """Connect to a host.

    Raises:
        Unreachable: why there is no connection, and the next step.
        BadInput: a file of host keys cannot be read, or not be written.
    """
    with ExitStack() as held:
        jump = _open_jump(target, known_hosts, held)
        known = known_hosts.known(target.key_name)
        with _gate(target):
            transport, key = _handshake(target, known, jump, held)
            is_new = _check(target, key, known, known_hosts)
            authenticate(transport, target)
        transport.set_keepalive(KEEP_ALIVE_S)
        return Link(transport, key, is_new, held.pop_all())


def shown_key(target: SshTarget, known_hosts: KnownHosts) -> HostKey:
    """The host key that a host shows; of the kind that is pinned, if it has one of that kind.

    Raises:
        Unreachable: it shows none, or a host on the way there cannot be reached.
    """
    with ExitStack() as held:
        jump = _open_jump(target, known_hosts, held)
        with _gate(target):
            return _handshake(target, known_hosts.known(target.key_name), jump, held)[1]


def _gate(target: SshTarget) -> threading.Semaphore:
    with _gates_lock:
        return _gates[target.address, target.port]


def _open_jump(target: SshTarget, known_hosts: KnownHosts, held: ExitStack) -> Link | None:
    if not target.jumps:
        return None
    *before, last = target.jumps
    try:
        link = open_link(replace(last, jumps=tuple(before), is_jump=True), known_hosts)
    except Unreachable as error:
        detail = f"the jump host {last.name} on the way there: {error.detail}"
        raise Unreachable(target.name, error.command, detail, reason=error.reason, output=error.output) from error
    held.callback(link.close)
    return link


def _handshake(
    target: SshTarget, known: Known, jump: Link | None, held: ExitStack
) -> tuple[paramiko.Transport, HostKey]:
    stream = open_way(target, jump.transport if jump else None, held)
    held.callback(stream.close)
    transport = paramiko.Transport(stream)
    held.callback(_close, transport, stream)
    transport.banner_timeout = BANNER_TIMEOUT_S
    _prefer(transport, known)
    ended = threading.Event()
    try:
        transport.start_client(event=ended)
        ended.wait(HANDSHAKE_TIMEOUT_S)
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError):
        raise _no_handshake(target, transport.get_exception()) from None
    return transport, HostKey(key.get_name(), key.asbytes())


def _prefer(transport: paramiko.Transport, known: Known) -> None:
    """Ask for a key of a kind that is known: a server has one of each kind, and shows the first that is asked for."""
    options = transport.get_security_options()
    kinds = [each for key in known.keys for each in _ALGORITHMS.get(key.kind, (key.kind,))]
    first = [kind for kind in dict.fromkeys(kinds) if kind in options.key_types]
    options.key_types = (*first, *(kind for kind in options.key_types if kind not in first))


def _close(transport: paramiko.Transport, stream: Any) -> None:
    with suppress(OSError, EOFError, paramiko.SSHException):
        stream.shutdown(socket.SHUT_RDWR)  # its thread notices the end at once, instead of within a tenth of a second
    transport.close()
    if transport.ident is not None:
        transport.join(1.0)


def _no_handshake(target: SshTarget, error: BaseException | None) -> Unreachable:
    where = f"{target.address} port {target.port}"
    causes = (error, error.__context__ if error else None)
    reason: Reason
    if error is None or any(isinstance(each, TimeoutError) for each in causes):
        reason = "no_answer"
        detail = f"{where} takes the connection and then says nothing; is that an SSH server, is the host overloaded?"
    elif isinstance(error, IncompatiblePeer):
        reason = "no_ssh"
        detail = f"{where} speaks no cipher or key that is still safe: {error}; update its SSH server"
    elif any(isinstance(each, EOFError | ConnectionError) for each in causes):
        reason = "hung_up"
        detail = (
            f"{where} hung up before anything was said; its SSH server may be starting, busy (MaxStartups) or banning "
            "this machine (fail2ban): sudo journalctl -u ssh"
        )
    else:
        reason = "no_ssh"
        detail = f"what answers on {where} is no SSH server: {error}; set ansible_port"
    return Unreachable(target.name, target.command, detail, reason=reason)


def _check(target: SshTarget, key: HostKey, known: Known, known_hosts: KnownHosts) -> bool:
    """Compare what a host shows with what is known; whether it was pinned just now."""
    hosts = known_hosts.hosts_file
    reason: Reason
    if key in known.revoked:
        reason, detail = "host_key_revoked", f"its host key {key} is revoked in {known.file}; make the host a new one"
    elif key in known.keys:
        return False
    elif known.keys:
        reason = "host_key_changed"
        repin = f"`edgebed trust {hosts} --host {target.name}`"
        if target.is_jump:
            forget = shlex.join(["ssh-keygen", "-R", target.key_name, "-f", str(known.file)])
            repin = f"`{forget}` and `edgebed check {hosts} --accept-new`"
        detail = (
            f"its host key is not the pinned one: {known.file} has {', '.join(map(str, known.keys))} for "
            f"{target.key_name}, the host shows {key}. A host that was flashed anew or replaced has a new key; if this "
            f"one was: {repin}. If not, something else answers at its address"
        )
    elif known_hosts.accept_new:
        known_hosts.pin({target.key_name: key})
        return True
    else:
        reason = "host_key_unknown"
        detail = (
            f"its host key is not known: {target.key_name} shows {key}; compare it with what the host itself says "
            "(for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done), then accept it, once: "
            f"`edgebed check {hosts} --accept-new`"
        )
    raise Unreachable(target.name, target.command, detail, reason=reason)
