"""What of a cluster may be shared: hosts by number, and no users, addresses, keys or paths.

Two nets, one behind the other: of what hosts say only what is listed here is taken at all; and every text of the result
then goes through a `Redactor`, which knows this cluster's own names and the shapes of those that it does not know.
"""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgebed.errors import EdgebedError
from orchestrator.inventory import Inventory
from orchestrator.remote.ssh_config import SshConfig

HIDDEN = "[hidden]"

TELLING = frozenset(
    {
        *("architecture", "board", "clock", "cpu_clock", "disk", "governor", "meter", "python", "round_trip"),
        *("temperature", "throttling", "version", "wifi", "wifi_power_save"),
    }
)
"""Checks whose evidence is shared. The others' may name who, where or which card; of them only the status is."""

FACTS = ("kernel", "machine", "processors", "model", "memory_kib")
"""What is taken of what a host says of itself in a run's manifest."""

_SHAPES = re.compile(
    r"""
    (?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.])          # IPv4
  | (?<![\w:.])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![\w:])       # IPv6, in full
  | (?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{1,4})*::[0-9a-f:.]*      # and shortened
  | (?<![\w:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:])            # hardware addresses
  | \w+://[^\s,;)]+                                              # endpoints
  | [\w.+-]+@[\w.-]+                                             # user@host
  | (?<![\w./])~?/[\w.@+-]+(?:/[\w.@+-]*)*                       # paths
  | (?:SHA256|MD5):[\w+/=:]+ | AAAA[\w+/=]{20,}                  # SSH keys
  | (?<![\w])[0-9a-f]{20,}(?![\w])                               # machine ids, digests
  | (?<![\w-])[\w-]+(?:\.[\w-]+)*\.(?:local|lan|home|internal|localdomain)(?![\w-])
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Redactor:
    """Takes out of texts what is nobody's business.

    Args:
        aliases: what hosts are called in the result, by their name.
        private: words that must not appear: users, addresses, paths.
    """

    def __init__(self, aliases: Mapping[str, str], private: set[str]) -> None:
        self.aliases = dict(aliases)
        words = {word: HIDDEN for word in private if len(word) > 1} | self.aliases
        # A longer word may contain a shorter one: the address pi-1.example the name pi-1.
        listed = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        self._words = words
        self._known = re.compile(rf"(?<![\w.@-])(?:{listed})(?![\w-])") if listed else None

    def text(self, text: str) -> str:
        """A text that may be shared."""
        if self._known is not None:
            text = self._known.sub(lambda found: self._words[found[0]], text)
        return _SHAPES.sub(HIDDEN, text)

    def clean(self, value: Any) -> Any:
        """Plain data, keys included, that may be shared."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.clean(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(each) for each in value]
        return value


def redactor_for(inventory: Inventory) -> Redactor:
    """A redactor that knows a cluster, the way to it, and this machine."""
    private = {getpass.getuser(), platform.node(), str(Path.home()), str(inventory.file)}
    config = SshConfig.load()
    for host in inventory.hosts:
        private |= {each for each in (host.address, host.user, host.ssh_key_file, host.peer_address) if each}
        if host.connection == "ssh":
            with suppress(EdgebedError):  # what cannot be told is told by the commands themselves
                target = config.target_of(host)
                private |= {target.address, target.user, target.key_name}
    aliases = aliases_of(inventory)
    return Redactor(aliases, private - set(aliases))


def aliases_of(inventory: Inventory) -> dict[str, str]:
    """What hosts are called in the result: their role and a number."""
    return {
        **{host.name: f"server-{number}" for number, host in enumerate(inventory.edge_servers, 1)},
        **{host.name: f"device-{number}" for number, host in enumerate(inventory.devices, 1)},
    }


def shared_finding(finding: Mapping[str, str]) -> dict[str, str]:
    """A finding of ``check --json`` as the result has it; what to do about it is told on the terminal."""
    shared = {"check": finding["check"], "status": finding["status"]}
    if finding["check"] in TELLING:
        shared["evidence"] = finding["evidence"]
    return shared
