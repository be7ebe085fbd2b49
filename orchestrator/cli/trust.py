"""Pin host keys anew, after a host was flashed or replaced.

The key that each host shows now is compared with the pinned one; what has changed is shown, and pinned when you say so.
Pins lie in the file known_hosts beside the hosts file. Nobody is logged in, and nothing is changed on a host. The
fingerprint of a host's own keys is shown on the host by: for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgebed.errors import EXIT_DONE, EXIT_FAILED, BadInput
from orchestrator.cli.arguments import AsJson
from orchestrator.cli.output import Output
from orchestrator.inventory import Host, Inventory, load_inventory
from orchestrator.remote.host_keys import HostKey, KnownHosts, clone_warning
from orchestrator.remote.ssh_config import SshConfig
from orchestrator.remote.ssh_link import shown_key
from orchestrator.remote.unreachable import Unreachable

EXAMPLES = (
    "edgebed trust inventory/hosts/pis.yaml",
    "edgebed trust inventory/hosts/pis.yaml --host pi-3 --yes",
)
MAX_THREADS = 32

State = Literal["unchanged", "changed", "new", "revoked", "unreachable"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a host shows, beside what is known of it.

    Attributes:
        name: what it is called in ``known_hosts``.
        old: the keys that are known. new: the key that it shows; None when it could not be reached.
        error: why it could not be.
    """

    host: str
    name: str
    state: State
    old: tuple[HostKey, ...] = ()
    new: HostKey | None = None
    error: str = ""

    def to_plain(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "state": self.state,
            "name": self.name,
            "old": [str(key) for key in self.old],
            "new": str(self.new) if self.new else None,
            "error": self.error or None,
        }

    def __str__(self) -> str:
        match self.state:
            case "unchanged":
                return f"{self.host}: unchanged, {self.new}"
            case "changed":
                return f"{self.host}: CHANGED\n  pinned: {', '.join(map(str, self.old))}\n  shown:  {self.new}"
            case "new":
                return f"{self.host}: new, {self.new}"
            case "revoked":
                return f"{self.host}: REVOKED, {self.new}; its host key has to be made anew: sudo ssh-keygen -A"
            case _:
                return self.error


def command(
    hosts: Annotated[Path, typer.Argument(metavar="HOSTS", help="The hosts file.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Pin without asking.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show whose host key has changed or is new, and pin what the hosts show now."""
    out = Output(as_json)
    inventory = load_inventory(hosts)
    selected = _selected(inventory, host or [])
    if not selected:
        out.text("no host of this file is reached over SSH; there is nothing to pin")
    known_hosts = KnownHosts.beside(hosts)
    found = compare(selected, known_hosts)
    for each in found:
        out.text(str(each))
    for group in known_hosts.cloned:
        out.note(f"warning: {clone_warning(group)}")
    changes = [each for each in found if each.state in ("changed", "new")]
    refusal = _refusal(changes, out, yes=yes)
    is_pinned = bool(changes) and refusal is None
    if is_pinned:
        known_hosts.pin({each.name: each.new for each in changes if each.new})
        out.text(f"pinned in {known_hosts.path}: {', '.join(each.host for each in changes)}")
    out.answer(
        {
            "hosts": {each.host: each.to_plain() for each in found},
            "pinned": [each.host for each in changes] if is_pinned else [],
            "clones": [list(group) for group in known_hosts.cloned],
            "file": str(known_hosts.path),
        }
    )
    if isinstance(refusal, BadInput):
        raise refusal
    has_failed = refusal is not None or any(each.state in ("unreachable", "revoked") for each in found)
    return EXIT_FAILED if has_failed else EXIT_DONE


def compare(hosts: list[Host], known_hosts: KnownHosts) -> list[Comparison]:
    """Ask all hosts at once for their keys, and compare them with those that are known.

    Raises:
        BadInput: ``~/.ssh/config`` or a file of host keys cannot be read.
    """
    config = SshConfig.load()

    def one(host: Host) -> Comparison:
        target = config.target_of(host)
        known = known_hosts.known(target.key_name)
        try:
            key = shown_key(target, known_hosts)
        except Unreachable as error:
            return Comparison(host.name, target.key_name, "unreachable", known.keys, error=str(error))
        known_hosts.note(host.name, key)
        state: State = "changed" if known.keys else "new"
        if key in known.revoked:
            state = "revoked"
        elif key in known.keys:
            state = "unchanged"
        return Comparison(host.name, target.key_name, state, known.keys, key)

    if not hosts:
        return []
    with ThreadPoolExecutor(min(MAX_THREADS, len(hosts)), "trust") as pool:
        return list(pool.map(one, hosts))


def _selected(inventory: Inventory, names: list[str]) -> list[Host]:
    if not names:
        return [host for host in inventory.hosts if host.connection == "ssh"]
    chosen = [inventory.host(name) for name in dict.fromkeys(names)]
    for host in chosen:
        if host.connection != "ssh":
            raise BadInput(f"--host {host.name}: it is this machine (ansible_connection: local) and has no host key")
    return chosen


def _refusal(changes: list[Comparison], out: Output, *, yes: bool) -> BadInput | str | None:
    """Why nothing is pinned; None when it may be."""
    if not changes or yes:
        return None
    if not sys.stdin.isatty():
        names = ", ".join(each.host for each in changes)
        return BadInput(
            f"nothing was pinned: there is no terminal to ask; compare the fingerprints of {names}, add --yes"
        )
    if typer.confirm(f"Pin the keys of these {len(changes)} hosts?", default=False, err=out.as_json):
        return None
    out.text("nothing was pinned")
    return "declined"
