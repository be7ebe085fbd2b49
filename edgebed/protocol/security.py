"""Who may speak: CURVE key pairs in files that only their owner can read, and an allow-list of public keys.

Every socket uses CURVE. A server admits only keys on its list and knows each peer's name and role from the list, never
from what the peer says. Source: RFC 27 (ZAP) and the CurveZMQ specification.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq

from edgebed.configuration import PeerKey
from edgebed.errors import BadInput, Problem
from edgebed.protocol.messages import Role

_KEY_LENGTH = 40  # Z85 text of 32 bytes
_ZAP_DOMAIN = "edgebed"


class KeyPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CURVE key pair, each half as Z85 text. ``repr`` never shows the secret half."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=...)"


def make_key_pair() -> KeyPair:
    """A new key pair from the system's random numbers."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def write_key_pair(path: Path, keys: KeyPair) -> None:
    """Write a key pair, readable by its owner alone from the first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(keys))


def read_key_pair(path: Path) -> KeyPair:
    """Read a key pair.

    Raises:
        BadInput: missing, not a key pair, or readable by others than its owner.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise BadInput(Problem(f"a secret key with mode {mode:04o}; allowed: 0600 (chmod 600)", file=str(path)))
        keys = msgspec.json.decode(path.read_bytes(), type=KeyPair)
    except OSError as error:
        raise BadInput(Problem(f"the secret key cannot be read: {error.strerror}", file=str(path))) from None
    except msgspec.MsgspecError:
        raise BadInput(Problem("not a key pair of edgebed; deploy again to make one", file=str(path))) from None
    if len(keys.public) != _KEY_LENGTH or len(keys.secret) != _KEY_LENGTH:
        raise BadInput(Problem(f"keys must be {_KEY_LENGTH} characters of Z85", file=str(path)))
    return keys


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a public key belongs to."""

    name: str
    role: Role


@dataclass(slots=True)
class AllowList:
    """Public keys that are admitted, and whose they are."""

    peers: dict[str, Peer] = field(default_factory=dict)

    @classmethod
    def from_config(cls, entries: Iterable[PeerKey]) -> AllowList:
        """The list in a program's settings.

        Raises:
            BadInput: an unknown role, or one key for two names.
        """
        peers: dict[str, Peer] = {}
        for entry in entries:
            if entry.role not in set(Role):
                raise BadInput(f"allow-list: {entry.name}: unknown role '{entry.role}'; allowed: {', '.join(Role)}")
            if len(entry.public_key) != _KEY_LENGTH:
                raise BadInput(f"allow-list: {entry.name}: a public key has {_KEY_LENGTH} characters of Z85")
            if entry.public_key in peers:
                raise BadInput(f"allow-list: {entry.name} and {peers[entry.public_key].name} have the same key")
            peers[entry.public_key] = Peer(entry.name, Role(entry.role))
        return cls(peers)

    def peer_of(self, public_key: str) -> Peer | None:
        """Whose key it is, or None."""
        return self.peers.get(public_key)

    def callback(self, domain: str, key: bytes) -> bool:
        """Answer the ZAP handler: is this key (Z85) on the list?"""
        return key.decode(errors="replace") in self.peers


class Gatekeeper:
    """Answers libzmq's question whether a key may connect, for all servers of one context."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allow: AllowList) -> None:
        # Imported here: it brings asyncio, which only the listening side needs.
        from zmq.auth.thread import ThreadAuthenticator

        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(_ZAP_DOMAIN, credentials_provider=allow)

    def close(self) -> None:
        """Stop answering; connections that stand stay."""
        self._authenticator.stop()


def secure_server(socket: zmq.Socket[bytes], keys: KeyPair) -> None:
    """Make a socket a CURVE server; call before bind."""
    socket.curve_server = True
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.setsockopt(zmq.ZAP_DOMAIN, _ZAP_DOMAIN.encode())


def secure_client(socket: zmq.Socket[bytes], keys: KeyPair, server_public: str) -> None:
    """Make a socket a CURVE client that talks to this server only; call before connect."""
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_serverkey = server_public.encode()
