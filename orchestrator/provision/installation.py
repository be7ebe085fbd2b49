"""What `edgebed deploy` has left on a host, read back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgebed.errors import BadInput
from orchestrator.inventory import Host
from orchestrator.provision.wheel import own_wheel
from orchestrator.remote.base import Remote

Keeper = Literal["systemd_system", "systemd_user", "shell"]
"""Who starts a program again when it has crashed: systemd, that of the user, or supervise.sh."""

ROOT_NAME = ".edgebed"
"""In the home folder of the user on the host."""

RECORD = "installation.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed; ``installation.json`` on the host, written last, when all of it is there.

    Attributes:
        digest: names the folder in ``versions/``.
        wheel: SHA-256 of edgebed's own wheel.
        edgebed: its version.
        interpreter: the host's own Python that the installation was made with. python: its version, as in 3.11.
        programs: for which the service is enabled.
    """

    digest: str
    wheel: str
    edgebed: str
    interpreter: str
    python: str
    machine: str
    keeper: Keeper
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Installation:
    """The edgebed of a host.

    Attributes:
        python: path of the interpreter that has edgebed and all that it needs.
        digest: names the installed version by its content; empty for this machine itself.
        root: the folder ``.edgebed``; empty for this machine itself, which has none.
        keeper: who keeps programs running there.
    """

    python: str
    digest: str
    root: str
    keeper: Keeper


_READ = f"""
root=$HOME/{ROOT_NAME}
current=$(readlink "$root/current") || exit 4
python=$root/$current/bin/python
[ -f "$root/{RECORD}" ] || exit 4
"$python" -V >/dev/null 2>&1 || exit 5
printf '%s\\n' "$root" "$current"
cat "$root/{RECORD}"
"""
_NOT_DEPLOYED, _BROKEN = 4, 5


def read_installation(remote: Remote, host: Host) -> Installation:
    """The edgebed of a host, which must be the one that the orchestrator itself is.

    A local host is this very machine and interpreter; nothing has to be deployed there.

    Args:
        remote: the host, connected.
        host: as the inventory has it.

    Raises:
        BadInput: it is not deployed, only half, or another version is; the text says what to do.
        RemoteError: the host was lost.
    """
    if host.connection == "local":
        return Installation(host.python or sys.executable, "", "", "shell")
    done = remote.execute(_READ, idempotent=True)
    if done.status == _NOT_DEPLOYED:
        raise BadInput(f"{host.name}: is not deployed; run `edgebed deploy HOSTS`")
    if done.status == _BROKEN:
        raise BadInput(
            f"{host.name}: the deployed Python does not start, for example after an upgrade of the system; "
            "run `edgebed deploy HOSTS`"
        )
    lines = done.checked("the installation could not be read").stdout.decode(errors="replace").splitlines()
    try:
        root, current, *record = lines
        found = msgspec.json.decode("".join(record), type=Record)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadInput(
            f"{host.name}: {ROOT_NAME}/{RECORD} cannot be read ({error}); run `edgebed deploy HOSTS`"
        ) from None
    if found.wheel != own_wheel().sha256 or current != f"versions/{found.digest}":
        raise BadInput(
            f"{host.name}: is deployed with another edgebed ({found.edgebed}, {found.digest}) than this one; "
            "run `edgebed deploy HOSTS`"
        )
    return Installation(f"{root}/{current}/bin/python", found.digest, root, found.keeper)
