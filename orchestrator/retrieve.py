"""Files of the hosts, copied to this machine: outboxes and logs."""

from __future__ import annotations

import shlex
import sqlite3
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from edgebed.errors import EdgebedError, RemoteError
from orchestrator.provision.deployment import Deployment
from orchestrator.provision.layout import Member


class SignOfLife(msgspec.Struct):
    """Until when a device's program certainly lived: seconds since the start of the cell with this serial."""

    serial: int
    cell_time_s: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an outbox had.

    Attributes:
        rows: how many of its rows were not in the run folder yet.
        alive: the program's last sign of life inside a cell; None when it left none.
    """

    rows: int
    alive: SignOfLife | None


def last_sign_of_life(path: Path) -> SignOfLife | None:
    """The state ``alive`` in a copied outbox; None when there is none that can be read."""
    with suppress(sqlite3.Error, msgspec.MsgspecError), closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT value FROM state WHERE key = 'alive'").fetchone()
        return msgspec.json.decode(found[0], type=SignOfLife) if found else None
    return None


# Run by the host's Python: a copy that is whole although the program may be writing.
_SNAPSHOT = """
import sqlite3, sys, os
source, copy = sys.argv[1:]
if os.path.exists(copy):
    os.unlink(copy)
with sqlite3.connect(source, timeout=5) as one, sqlite3.connect(copy) as other:
    one.backup(other)
"""


def fetch_outbox(deployment: Deployment, member: Member, into: Path) -> Path | None:
    """Copy a program's outbox to this machine, whether the program runs or not.

    Returns:
        The copy; None when the host has no such file.

    Raises:
        RemoteError: the host was lost.
    """
    remote, folder = deployment.remote(member.host.name), deployment.folder(member.host.name)
    assert folder is not None
    source = folder.outbox(member.program)
    if remote.execute(f"test -f {shlex.quote(source)}", idempotent=True).status != 0:
        return None
    copy = f"{source}.copy"
    command = shlex.join([member.host.python or sys.executable, "-I", "-c", _SNAPSHOT, source, copy])
    target = into / f"{member.name}.outbox.sqlite"
    if remote.execute(command, idempotent=True).status == 0:
        _download(deployment, member, copy, target)
        return target
    # SQLite cannot read a damaged file; as it is, with its log, it may still give what is whole in it.
    _download(deployment, member, source, target)
    with suppress(RemoteError):
        _download(deployment, member, f"{source}-wal", target.with_name(f"{target.name}-wal"))
    return target


def _download(deployment: Deployment, member: Member, path: str, target: Path) -> None:
    with target.open("wb") as file:
        deployment.remote(member.host.name).download(path, file)


def collect_logs(deployment: Deployment, into: Path) -> list[str]:
    """Append every program's log to ``<into>/<member>.log``.

    Returns:
        A sentence for each that could not be had.
    """
    into.mkdir(parents=True, exist_ok=True)
    work = {
        member.name: deployment.in_background(partial(_collect_log, deployment, member, into))
        for member in deployment.members
        if deployment.folder(member.host.name) is not None
    }
    problems = []
    for name, each in work.items():
        try:
            each.result()
        except (EdgebedError, OSError) as error:
            problems.append(f"the log of {name} could not be fetched: {error}")
    return problems


def _collect_log(deployment: Deployment, member: Member, into: Path) -> None:
    folder = deployment.folder(member.host.name)
    assert folder is not None
    remote, log = deployment.remote(member.host.name), folder.log(member.program)
    if remote.execute(f"test -s {shlex.quote(log)}", idempotent=True).status == 0:
        with (into / f"{member.name}.log").open("ab") as file:
            remote.download(log, file)
