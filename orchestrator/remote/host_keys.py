"""Host keys: how a host proves that it is the one that was there before.

A project pins the keys of its hosts in the file ``known_hosts`` beside its hosts file, in OpenSSH's format, so that it
can be read, shared and repaired by OpenSSH's own tools. The user's ``~/.ssh/known_hosts`` is a second source, only
read: who reaches a host by ``ssh`` reaches it with edgebed, too. A host that the project's file names is looked up
there alone.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgebed.errors import BadInput, Problem

PROJECT_FILE = "known_hosts"
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host's public key.

    Attributes:
        kind: as OpenSSH calls it: ``ssh-ed25519``, ``ssh-rsa``, ...
        blob: the key in SSH's wire format.
    """

    kind: str
    blob: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a host.

    Attributes:
        keys: those that it may show; none: it is not known.
        revoked: those that nobody may show.
        file: where the keys were found.
    """

    keys: tuple[HostKey, ...]
    revoked: tuple[HostKey, ...]
    file: Path


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a file; ``key`` is None for a comment and for what is not understood."""

    text: str
    patterns: tuple[str, ...] = ()
    key: HostKey | None = None
    is_revoked: bool = False

    def names(self, name: str) -> bool:
        """Whether it is about a host."""
        if any(pattern.startswith("!") and _matches(pattern[1:], name) for pattern in self.patterns):
            return False
        return any(_matches(pattern, name) for pattern in self.patterns)


def name_of(address: str, port: int) -> str:
    """What a host is called in a ``known_hosts`` file."""
    return address.lower() if port == SSH_PORT else f"[{address.lower()}]:{port}"


class KnownHosts:
    """The host keys of a project. Several threads may use it at once.

    Args:
        path: the project's file; it need not exist.
        user_file: the second source, only read; None for no second source.
        accept_new: pin the key of a host that nothing is known of, instead of refusing the host.
        hosts_file: the hosts file that it belongs to, for messages that name the next command.
    """

    def __init__(
        self, path: Path, *, user_file: Path | None = None, accept_new: bool = False, hosts_file: str = "HOSTS"
    ) -> None:
        self.path = path
        self.accept_new = accept_new
        self.hosts_file = hosts_file
        self._user_file = user_file
        self._lock = threading.Lock()
        self._shown: dict[str, HostKey] = {}
        self._accepted: dict[str, HostKey] = {}

    @classmethod
    def beside(cls, hosts_file: Path | str, *, accept_new: bool = False) -> KnownHosts:
        """The host keys of the project that a hosts file belongs to; the user's own file is the second source."""
        user_file = Path.home() / ".ssh" / "known_hosts"
        path = Path(hosts_file).parent / PROJECT_FILE
        return cls(path, user_file=user_file, accept_new=accept_new, hosts_file=str(hosts_file))

    def known(self, name: str) -> Known:
        """The keys that a host may show.

        Args:
            name: as `name_of` gives it.

        Raises:
            BadInput: a file cannot be read.
        """
        files = [self.path] if self._user_file is None else [self.path, self._user_file]
        lines = {file: _read(file) for file in files}
        revoked = tuple(line.key for each in lines.values() for line in each if line.key and line.is_revoked)
        for file in files:
            keys = tuple(line.key for line in lines[file] if line.key and not line.is_revoked and line.names(name))
            if keys:
                return Known(keys, revoked, file)
        return Known((), revoked, self.path)

    def pin(self, pins: dict[str, HostKey]) -> None:
        """Write keys into the project's file, each instead of all that it has of that host.

        Args:
            pins: key by name, see `name_of`.

        Raises:
            BadInput: the file cannot be written.
        """
        with self._lock, _held(self.path):
            kept = [_without(line, pins) for line in _read(self.path)]
            added = [f"{name} {key.kind} {base64.b64encode(key.blob).decode()}" for name, key in pins.items()]
            _replace(self.path, [*(text for text in kept if text is not None), *added])

    # -- what was seen in this session --------------------------------------------------------------------------------

    def note(self, host: str, key: HostKey, *, is_new: bool = False) -> None:
        """Remember which key a host of the inventory has shown, and that it was accepted just now."""
        with self._lock:
            self._shown[host] = key
            if is_new:
                self._accepted[host] = key

    @property
    def accepted(self) -> dict[str, HostKey]:
        """The keys that were accepted in this session, by host."""
        with self._lock:
            return dict(self._accepted)

    @property
    def cloned(self) -> tuple[tuple[str, ...], ...]:
        """Groups of hosts that showed one and the same key in this session: clones of one image.

        Whoever has one of them can pose as the others: a host makes new keys by ``sudo rm /etc/ssh/ssh_host_*`` and
        ``sudo ssh-keygen -A``. Two names of one and the same machine are such a group, too.
        """
        groups: dict[bytes, list[str]] = defaultdict(list)
        with self._lock:
            for host, key in self._shown.items():
                groups[key.blob].append(host)
        return tuple(sorted(tuple(sorted(hosts)) for hosts in groups.values() if len(hosts) > 1))


def clone_warning(hosts: Iterable[str]) -> str:
    """What to tell people of a group of `KnownHosts.cloned`."""
    return (
        f"{', '.join(hosts)} show the same host key: cloned images, or one machine under several names. Clones can "
        "pose as each other; on each: sudo rm /etc/ssh/ssh_host_* && sudo ssh-keygen -A && sudo systemctl restart ssh; "
        "then `edgebed trust HOSTS`"
    )


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("|1|"):
        wild = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")  # brackets mean themselves here
        return re.fullmatch(wild, name) is not None
    try:  # hashed, as OpenSSH does with HashKnownHosts: HMAC-SHA1 of the name
        salt, digest = (base64.b64decode(part) for part in pattern.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _read(path: Path) -> list[_Line]:
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    return [_parsed(line) for line in text.splitlines()]


def _parsed(text: str) -> _Line:
    fields = text.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    # Certificate authorities are not supported: such a line pins nothing.
    if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
        return _Line(text)
    patterns, kind, encoded = fields[:3]
    try:
        key = HostKey(kind, base64.b64decode(encoded, validate=True))
    except binascii.Error:
        return _Line(text)
    return _Line(text, tuple(patterns.split(",")), key, bool(marker))


def _without(line: _Line, names: Iterable[str]) -> str | None:
    """A line's text without the hosts that are pinned anew; None when nothing is left of it."""
    if line.key is None or line.is_revoked:
        return line.text
    gone = {pattern for name in names for pattern in line.patterns if _matches(pattern, name)}
    if not gone:
        return line.text
    # A pattern that stands for many hosts has to go for all of them: OpenSSH would go on taking the old key.
    left = [pattern for pattern in line.patterns if pattern not in gone]
    return " ".join([",".join(left), *line.text.split()[1:]]) if left else None


def _replace(path: Path, lines: list[str]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text("".join(f"{line}\n" for line in lines))
        temporary.replace(path)
    except OSError as error:
        raise BadInput(Problem(f"cannot be written: {error.strerror}", file=str(path))) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same file; a lock on its folder, so that nothing is left lying there."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise BadInput(Problem(f"cannot be written: {error.strerror}", file=str(path))) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
