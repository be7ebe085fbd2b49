"""The keys of a run. A pair for every program, made for this run alone.

A program's secret half goes to its host. The orchestrator's own, and that of an external decider, stay in the run's
state folder on this machine, so that `edgebed resume` can speak with programs that still run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgebed.configuration import PeerKey
from edgebed.errors import BadInput, Problem
from edgebed.protocol.messages import Role
from edgebed.protocol.security import KeyPair, make_key_pair, read_key_pair, write_key_pair
from orchestrator.plan_file import Plan
from orchestrator.provision.layout import Member, free_name

ORCHESTRATOR_KEY = "orchestrator.key"
EXTERNAL_KEY = "external.key"


class Public(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a run's keys by everyone who may know it.

    Attributes:
        orchestrator, external: what these two are called on the wire.
        keys: public key by name.
    """

    orchestrator: str
    external: str
    keys: dict[str, str]

    def allowed(self, members: list[Member], roles: frozenset[Role]) -> list[PeerKey]:
        """The allow-list of a program that peers of these roles may speak with."""
        peers = [(member.name, member.role) for member in members]
        peers += [(self.orchestrator, Role.ORCHESTRATOR), (self.external, Role.EXTERNAL)]
        return [PeerKey(name, role.value, self.keys[name]) for name, role in peers if role in roles]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Public keys of all, and secret ones of those that are this machine's.

    Attributes:
        secrets: key pairs of members, only known while they are being made.
    """

    public: Public
    orchestrator: KeyPair
    external: KeyPair
    secrets: dict[str, KeyPair]


def make_credentials(plan: Plan, members: list[Member]) -> Credentials:
    """New keys for everyone."""
    orchestrator, external = free_name(plan, "orchestrator"), free_name(plan, "external")
    pairs = {name: make_key_pair() for name in (orchestrator, external, *(member.name for member in members))}
    public = Public(
        orchestrator=orchestrator, external=external, keys={name: pair.public for name, pair in pairs.items()}
    )
    return Credentials(public, pairs.pop(orchestrator), pairs.pop(external), pairs)


def save_own(credentials: Credentials, folder: Path) -> None:
    """Write this machine's own key pairs, each readable by its owner alone."""
    write_key_pair(folder / ORCHESTRATOR_KEY, credentials.orchestrator)
    write_key_pair(folder / EXTERNAL_KEY, credentials.external)


def load_own(public: Public, folder: Path) -> Credentials:
    """The keys that `save_own` has written.

    Raises:
        BadInput: a key is missing, open to others, or not the one that the programs know.
    """
    orchestrator, external = read_key_pair(folder / ORCHESTRATOR_KEY), read_key_pair(folder / EXTERNAL_KEY)
    if orchestrator.public != public.keys[public.orchestrator]:
        raise BadInput(Problem("is not the key that this run's programs know", file=str(folder / ORCHESTRATOR_KEY)))
    return Credentials(public, orchestrator, external, {})
