"""Who holds a host: one orchestrator at a time, so that two runs cannot spoil each other's measurements.

A lease is the file ``lease.json`` on the host. Taking it is one hard link, which either is made or not. Its age is told
by the host's clock alone: the time since it was last renewed.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import shlex
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from edgebed.errors import WorkFailed
from orchestrator.remote.base import Remote

RENEW_EVERY_S = 10.0
"""How often a holder is to renew its leases."""

DEAD_AFTER_S = 120.0
"""A lease of another machine that was not renewed for so long has no living holder."""

_HELD, _NONE, _LOST = 3, 4, 5

_AGE = 'echo "$(( $(date +%s) - $(stat -c %Y lease.json) ))"'

# The new file is complete before it gets its name, and gets it only if the name is free.
_TAKE = f"""
umask 077
new=.lease.$$.new
cat >"$new" && {{ sync "$new" 2>/dev/null || sync; }} || {{ rm -f "$new"; exit 1; }}
status=0
ln "$new" lease.json 2>/dev/null || status={_HELD}
[ -e lease.json ] || status=1
rm -f "$new"
if [ "$status" = {_HELD} ]; then {_AGE} && cat lease.json; fi
exit "$status"
"""
_READ = f"[ -e lease.json ] || exit {_NONE}\n{_AGE} && cat lease.json"
# Moved away first: should it be another's by now, it is put back.
_REMOVE = """
old=.lease.$$.old
mv lease.json "$old" 2>/dev/null || exit 0
if [ "$(cat "$old")" = "$content" ]; then rm -f "$old"; exit 0; fi
ln "$old" lease.json 2>/dev/null
rm -f "$old"
"""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """An orchestrator that holds a host.

    Attributes:
        holder: ``user@machine``, for people.
        machine: tells machines apart that have the same name.
        pid, started_s: the process, and when it began (UTC seconds of its machine): numbers come again.
        run_id: what it is doing.
        taken: UTC, ISO 8601, of the holder's clock.
    """

    holder: str
    machine: str
    pid: int
    started_s: float
    run_id: str
    taken: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A host's lease as it was found.

    Attributes:
        holder: None when the file cannot be read as one.
        age_s: since it was last renewed, by the host's clock.
        content: the file.
    """

    holder: Holder | None
    age_s: float
    content: str

    @property
    def is_dead(self) -> bool:
        """Its holder certainly ended (a process of this machine), or was silent for `DEAD_AFTER_S` (of another)."""
        if self.holder is None:
            return self.age_s > DEAD_AFTER_S
        if self.holder.machine == machine_identity():
            return not _lives(self.holder)
        return self.age_s > DEAD_AFTER_S

    def __str__(self) -> str:
        if self.holder is None:
            return f"someone whose lease cannot be read, renewed {self.age_s:.0f} s ago"
        of = self.holder
        return (
            f"{of.holder} (process {of.pid}, run {of.run_id or '-'}, since {of.taken}, renewed {self.age_s:.0f} s ago)"
        )


def own_holder(run_id: str) -> Holder:
    """This process, as a holder."""
    process = psutil.Process()
    return Holder(
        holder=f"{_user()}@{platform.node()}",
        machine=machine_identity(),
        pid=process.pid,
        started_s=process.create_time(),
        run_id=run_id,
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def machine_identity() -> str:
    """What tells this machine from others of its name; says nothing else about it."""
    identity = ""
    with suppress(OSError):
        identity = Path("/etc/machine-id").read_text()
    return hashlib.sha256(f"{platform.node()} {identity}".encode()).hexdigest()[:16]


def take(remote: Remote, root: str, holder: Holder) -> None:
    """Hold a host, taking it over from a holder that is dead.

    Args:
        remote: the host, connected.
        root: its ``.edgebed``.
        holder: who is to hold it, see `own_holder`.

    Raises:
        WorkFailed: someone else holds it; the text names them.
        RemoteError: the host was lost, or cannot write.
    """
    content = _content(holder)
    for _ in range(2):
        # Not to be repeated blindly: the second try would find the first one's lease. It would be recognised as ours.
        done = remote.execute(_in(root, _TAKE), stdin=content.encode(), idempotent=True)
        if done.status != _HELD:
            done.checked("the lease could not be taken")
            return
        found = _parsed(done.stdout)
        if found.content == content:
            return
        if not found.is_dead:
            break
        break_(remote, root, found)
    raise WorkFailed(held_text(remote.host, found))


def held_text(host: str, lease: Lease) -> str:
    """The sentence for someone who wants a host that another holds."""
    return (
        f"{host}: is held by {lease}; wait until it is done, "
        "or, when nobody works there any more, run `edgebed release HOSTS`"
    )


def renew(remote: Remote, root: str, holder: Holder) -> None:
    """Say that the holder is still there; every `RENEW_EVERY_S` while it holds.

    Raises:
        WorkFailed: the lease is gone or someone else's: it was broken.
        RemoteError: the host was lost.
    """
    same = f'content=$(cat); [ "$(cat lease.json 2>/dev/null)" = "$content" ] || exit {_LOST}; touch lease.json'
    done = remote.execute(_in(root, same), stdin=_content(holder).encode(), idempotent=True)
    if done.status == _LOST:
        raise WorkFailed(f"{remote.host}: the lease of {holder.run_id or holder.holder} was broken by someone else")
    done.checked("the lease could not be renewed")


def drop(remote: Remote, root: str, holder: Holder) -> None:
    """Hold a host no longer; harmless when it is someone else's by now.

    Raises:
        RemoteError: the host was lost.
    """
    _remove(remote, root, _content(holder))


def read(remote: Remote, root: str) -> Lease | None:
    """Who holds a host; None when nobody does.

    Raises:
        RemoteError: the host was lost.
    """
    done = remote.execute(_in(root, _READ), idempotent=True)
    if done.status == _NONE:
        return None
    return _parsed(done.checked("the lease could not be read").stdout)


def break_(remote: Remote, root: str, lease: Lease) -> None:
    """Take a lease away from its holder; harmless when the host has another by now.

    Raises:
        RemoteError: the host was lost.
    """
    _remove(remote, root, lease.content)


def parse_lease(content: str, age_s: float) -> Lease:
    """A lease file's content as a `Lease`."""
    holder = None
    with suppress(msgspec.MsgspecError):
        holder = msgspec.json.decode(content, type=Holder)
    return Lease(holder, age_s, content)


def _remove(remote: Remote, root: str, content: str) -> None:
    done = remote.execute(_in(root, "content=$(cat)\n" + _REMOVE), stdin=content.encode(), idempotent=True)
    done.checked("the lease could not be given back")


def _parsed(output: bytes) -> Lease:
    age, _, content = output.decode(errors="replace").partition("\n")
    return parse_lease(content.strip(), float(age) if age.strip("-").isdigit() else 0.0)


def _content(holder: Holder) -> str:
    return msgspec.json.encode(holder).decode()


def _in(root: str, script: str) -> str:
    return f"cd {shlex.quote(root)} || exit 1\n{script}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return str(os.getuid())


def _lives(holder: Holder) -> bool:
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.started_s) < 1.0
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
