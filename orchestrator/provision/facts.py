"""What a host says of itself, asked for in one round trip."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edgebed.errors import RemoteError
from orchestrator.inventory import Host
from orchestrator.provision.installation import ROOT_NAME, Record
from orchestrator.provision.lease import Lease, parse_lease
from orchestrator.provision.ledger import Entry, parse_ledger
from orchestrator.remote.base import Remote

SCRIPT_FILE = Path(__file__).with_name("facts.sh")

_SHA256 = re.compile("[0-9a-f]{64}")

Root = Literal["none", "empty", "ours", "foreign"]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of a host.

    Attributes:
        version: major and minor.
        bits: 32 or 64.
        missing: modules of the standard library that it lacks, as Debian's minimal package does.
    """

    path: str
    version: tuple[int, int]
    bits: int = 64
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """A host before a deploy.

    Attributes:
        kernel, machine: of ``uname -sm``. bits: of the userland, 32 or 64.
        glibc: version; None for another C library, and on a host that has been deployed, which is not asked again.
        home: the user's home folder, absolute. state_root: where runs keep their state folders.
        address: the host's own, by which SSH reached it; empty when it does not say.
        systemd: whose are there. linger: the user's goes on after logging out.
        sudo: without a password; None when it was not asked for.
        chrony: installed, with a folder for configuration; only asked for where it is wanted.
        folders: those that are there, of those that deploying may have to make.
        root: of what kind ``~/.edgebed`` is.
        pythons: those found; empty where the deployed one works and no other is asked for.
        record, current, current_python, versions, partial: what is deployed; ``current`` is what the link points to,
            ``current_python`` what the deployed interpreter says of itself, empty when it does not start.
        active: state folder of the run that each program is to be kept for.
        enabled: units that start with the host, by scope.
        sums: SHA-256 of files, by path.
        ledger: changes that were made by earlier deploys.
    """

    user: str
    uid: int
    home: str
    kernel: str = "Linux"
    machine: str = ""
    bits: int = 64
    glibc: tuple[int, int] | None = None
    model: str = ""
    address: str = ""
    state_root: str = ""
    writable: bool = True
    groups: frozenset[str] = frozenset()
    systemd: frozenset[str] = frozenset()
    linger: bool = False
    sudo: bool | None = None
    chrony: bool = False
    folders: frozenset[str] = frozenset()
    root: Root = "none"
    pythons: tuple[Interpreter, ...] = ()
    record: Record | None = None
    current: str = ""
    current_python: str = ""
    versions: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    active: tuple[tuple[str, str], ...] = ()
    enabled_system: frozenset[str] = frozenset()
    enabled_user: frozenset[str] = frozenset()
    sums: tuple[tuple[str, str], ...] = ()
    ledger: tuple[Entry, ...] = ()
    lease: Lease | None = None

    @property
    def root_path(self) -> str:
        """Where all of edgebed lies on the host."""
        return f"{self.home}/{ROOT_NAME}"

    def sum_of(self, path: str) -> str:
        """SHA-256 of a file of the host; empty when it has none there."""
        return dict(self.sums).get(path, "")

    def has_changed(self, key: str) -> bool:
        """Whether a change of that key is in the ledger."""
        return any(entry.key == key for entry in self.ledger)


def read_facts(remote: Remote, host: Host) -> HostFacts:
    """Ask a host.

    Args:
        remote: the host, connected.
        host: as the inventory has it; what it asks for decides what has to be known.

    Raises:
        RemoteError: the host was lost, or its answer makes no sense.
    """
    wanted = {"python": host.python or "", "service": host.service, "clock": host.clock}
    settings = "\n".join(f"{name}={shlex.quote(value)}" for name, value in wanted.items())
    command = f"{settings}\n{SCRIPT_FILE.read_text()}"
    done = remote.execute(command, idempotent=True)
    try:
        return parse_facts(done.stdout.decode(errors="replace"))
    except (ValueError, LookupError, msgspec.MsgspecError) as error:
        output = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        detail = f"what it says of itself makes no sense ({error}); is its login shell a POSIX one, and silent?"
        raise RemoteError(remote.host, "sh", detail, status=done.status, output=output) from None


def parse_facts(text: str) -> HostFacts:
    """What ``facts.sh`` has printed; lines of ``sha256sum`` stand among the others as they are.

    Raises:
        ValueError, LookupError, MsgspecError: it is not that.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if _SHA256.fullmatch(name):
            name, value = "sum", line
        lines[name].append(value.strip())

    def one(name: str) -> str:
        return lines[name][0] if lines[name] else ""

    kernel, _, machine = one("system").partition(" ")
    record = _record(one("record"))
    if record is not None and not machine:  # told when it was deployed
        kernel, machine = "Linux", record.machine
    connection = one("ssh_connection").split()
    return HostFacts(
        user=lines["user"][0],
        uid=int(lines["uid"][0]),
        home=lines["home"][0].rstrip("/"),
        kernel=kernel,
        machine=machine,
        bits=int(one("bits") or 64),
        glibc=_glibc(one("glibc")),
        model=one("model"),
        address=connection[2] if len(connection) == 4 else "",
        state_root=one("state_root"),
        writable=bool(lines["writable"]),
        groups=frozenset(lines["group"]),
        systemd=frozenset(lines["systemd"]),
        linger=bool(lines["linger"]),
        sudo=one("sudo") == "yes" if lines["sudo"] else None,
        chrony=bool(lines["chrony"]),
        folders=frozenset(lines["folder"]),
        root=_root(one("root")),
        pythons=tuple(dict.fromkeys(_interpreter(each) for each in lines["python"])),
        record=record,
        current=one("current"),
        current_python=one("current_python").removeprefix("Python "),
        versions=frozenset(lines["version"]),
        partial=frozenset(lines["partial"]),
        active=tuple(_pair(each) for each in lines["active"]),
        enabled_system=frozenset(lines["enabled_system"]),
        enabled_user=frozenset(lines["enabled_user"]),
        sums=tuple(_pair(each)[::-1] for each in lines["sum"]),
        ledger=parse_ledger(lines["ledger"]),
        lease=_lease(one("lease")),
    )


def _pair(text: str) -> tuple[str, str]:
    first, _, second = text.partition(" ")
    return first, second.strip()


def _glibc(text: str) -> tuple[int, int] | None:
    name, _, version = text.partition(" ")
    if name != "glibc":
        return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _root(text: str) -> Root:
    if text not in ("none", "empty", "ours", "foreign"):
        raise ValueError(f"root {text!r}")
    return text  # type: ignore[return-value]


def _interpreter(text: str) -> Interpreter:
    path, version, bits, missing = text.rsplit(" ", 3)
    major, minor = version.split(".")
    return Interpreter(path, (int(major), int(minor)), int(bits), () if missing == "-" else tuple(missing.split(",")))


def _record(text: str) -> Record | None:
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Record)
    except msgspec.MsgspecError:  # half of it, or of an edgebed that wrote another: deploying writes it again
        return None


def _lease(text: str) -> Lease | None:
    if not text:
        return None
    age, content = _pair(text)
    return parse_lease(content, float(age))
