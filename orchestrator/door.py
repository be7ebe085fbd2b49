"""Where a program outside finds what asks it to decide a run, and the key that lets it in.

Both lie in the state folder of the run on this machine, which its user alone can read, while the run goes on; never in
the run's own folder. On hosts `orchestrator.provision.deployment` leaves them there, in virtual time `put_up` does.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgebed.configuration import PeerAddress
from edgebed.errors import BadInput
from edgebed.protocol.security import KeyPair, read_key_pair, write_key_pair
from edgebed.replacing import replace_file
from orchestrator.backends.assembly import local_state_root
from orchestrator.plan_file import Plan
from orchestrator.provision.credentials import EXTERNAL_KEY, Credentials, Public
from orchestrator.provision.deployment import RECORD_FILE, make_private
from orchestrator.provision.layout import controller_name, state_name


@dataclass(frozen=True, slots=True)
class Door:
    """Where the controller of a run is, and the key that lets its decider in."""

    address: PeerAddress
    name: str
    keys: KeyPair


class _Deployed(msgspec.Struct):
    """As much of `orchestrator.provision.deployment.RECORD_FILE` as is needed here."""

    public: Public
    endpoints: dict[str, str]


def door_folder(run: Path, plan: Plan) -> Path:
    """What this machine has to remember while a run goes on."""
    return local_state_root() / state_name(plan.run_id, run) / ".orchestrator"


def find_door(run: Path, plan: Plan) -> Door | None:
    """Where the controller of a run is to be found; None while its programs are not up."""
    folder, controller = door_folder(run, plan), controller_name(plan)
    try:
        record = msgspec.json.decode((folder / RECORD_FILE).read_bytes(), type=_Deployed)
        keys = read_key_pair(folder / EXTERNAL_KEY)
        address = PeerAddress(controller, record.endpoints[controller], record.public.keys[controller])
    except (OSError, KeyError, msgspec.MsgspecError, BadInput):
        return None
    return Door(address, record.public.external, keys)


def make_door_folder(run: Path, plan: Plan) -> Path:
    """The folder of `door_folder`, for its owner alone, without what a run that was killed has left there."""
    folder = door_folder(run, plan)
    take_down(folder)
    make_private(folder)
    return folder


def put_up(folder: Path, plan: Plan, credentials: Credentials, endpoint: str) -> None:
    """Let a decider find what listens here as the controller of a run, and get in.

    Args:
        folder: of `make_door_folder`.
        plan: of the run.
        credentials: of the run.
        endpoint: where it listens.
    """
    write_key_pair(folder / EXTERNAL_KEY, credentials.external)
    record = _Deployed(credentials.public, {controller_name(plan): endpoint})
    replace_file(folder / RECORD_FILE, msgspec.json.encode(record))


def take_down(folder: Path) -> None:
    """Leave nothing of a door, its key least of all."""
    with suppress(OSError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.parent.rmdir()
