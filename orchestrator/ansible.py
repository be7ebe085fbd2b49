"""Reads an Ansible YAML inventory: groups, their hosts, and which variable wins.

As in Ansible: ``all`` < outer group < inner group < host; between groups of one depth ``ansible_group_priority``, then
the alphabet decides. Host names may have ranges: ``pi-[1:8]``, ``pi-[01:20:2]``, ``pi-[a:f]``.
Not read: ``group_vars/``, ``host_vars/``, templates, INI files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from edgebed.errors import Problem
from orchestrator.documents import Document, KeyPath, shown
from orchestrator.validation import unknown_key

MAX_HOSTS = 1000
ROOT = "all"

_RANGE = re.compile(r"\[([0-9]+|[a-zA-Z]):([0-9]+|[a-zA-Z])(?::([0-9]+))?\]")
_GROUP_KEYS = ("hosts", "vars", "children")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable's value and where it was written."""

    value: Any
    path: KeyPath


@dataclass(slots=True)
class Group:
    """A group as the file has it; one that stands in several places is gathered here."""

    name: str
    variables: dict[str, Variable] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)


@dataclass
class AnsibleInventory:
    """The groups and hosts of a file.

    Attributes:
        hosts: each host's own variables; later places in the file win.
        host_paths: where each host was first written.
        problems: what is wrong with the structure.
    """

    document: Document
    groups: dict[str, Group] = field(default_factory=dict)
    hosts: dict[str, dict[str, Variable]] = field(default_factory=dict)
    host_paths: dict[str, KeyPath] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def members(self, group_name: str) -> list[str]:
        """The hosts of a group and of the groups inside it, in the file's order. Ask when all has been read."""
        return list(self._members.get(group_name, ()))

    def variables(self, host: str) -> dict[str, Variable]:
        """A host's variables after all groups have had their say."""
        merged: dict[str, Variable] = {}
        for name in self._ranked:
            if name == ROOT or host in self._members[name]:
                merged |= self.groups[name].variables
        return merged | self.hosts[host]

    @cached_property
    def _members(self) -> dict[str, dict[str, None]]:
        return {
            name: {host: None for inner in self.inside(name) for host in self.groups[inner].hosts}
            for name in self.groups
        }

    @cached_property
    def _ranked(self) -> list[str]:
        """All groups, those that win last."""
        return sorted(self.groups, key=self._rank)

    def inside(self, group_name: str) -> list[str]:
        """A group and all groups inside it."""
        found: dict[str, None] = {}
        waiting = [group_name] if group_name in self.groups else []
        while waiting:
            name = waiting.pop(0)
            if name not in found:
                found[name] = None
                waiting = self.groups[name].children + waiting
        return list(found)

    def _rank(self, group_name: str) -> tuple[int, int, str]:
        priority = self.groups[group_name].variables.get("ansible_group_priority")
        chosen = priority.value if priority and isinstance(priority.value, int) else 1
        return self._depth(group_name, ()), chosen, group_name

    def _depth(self, group_name: str, below: tuple[str, ...]) -> int:
        """Length of the longest way down from ``all``; ``below`` stops at groups that contain each other."""
        if group_name == ROOT:
            return 0
        around = [name for name, group in self.groups.items() if group_name in group.children and name not in below]
        return 1 + max((self._depth(name, (*below, group_name)) for name in around), default=0)


def read_ansible(document: Document) -> AnsibleInventory:
    """Gather groups and hosts; what is wrong is in ``problems`` of the result."""
    inventory = AnsibleInventory(document)
    for name, content in document.data.items():
        _read_group(inventory, name, content, (name,))
    return inventory


def _read_group(inventory: AnsibleInventory, name: str, content: Any, path: KeyPath) -> None:
    group = inventory.groups.setdefault(name, Group(name))
    if not isinstance(content, dict):
        if content is not None:
            _note(inventory, path, f"is {shown(content)}; expected a group with hosts, vars or children")
        return
    for key in content.keys() - set(_GROUP_KEYS):
        _note(inventory, (*path, key), unknown_key(key, _GROUP_KEYS))
    for key in _GROUP_KEYS:
        if content.get(key) is not None and not isinstance(content[key], dict):
            _note(inventory, (*path, key), f"is {shown(content[key])}; expected a mapping of keys, `name:` a line")
    group.variables |= _variables(content.get("vars"), (*path, "vars"))
    for pattern, variables in _entries(content.get("hosts")):
        _read_hosts(inventory, group, pattern, variables, (*path, "hosts", pattern))
    for child, inner in _entries(content.get("children")):
        if child not in group.children:
            group.children.append(child)
        _read_group(inventory, child, inner, (*path, "children", child))
        if name in inventory.inside(child):
            _note(inventory, (*path, "children", child), f"contains {name}, which contains it")


def _read_hosts(inventory: AnsibleInventory, group: Group, pattern: str, content: Any, path: KeyPath) -> None:
    if content is not None and not isinstance(content, dict):
        _note(inventory, path, f"is {shown(content)}; expected the host's variables, or nothing")
    try:
        names = expand_range(pattern)
    except ValueError as error:
        _note(inventory, path, str(error))
        return
    for name in names:
        group.hosts[name] = None
        inventory.host_paths.setdefault(name, path)
        inventory.hosts[name] = inventory.hosts.get(name, {}) | _variables(content, path)


def expand_range(pattern: str) -> list[str]:
    """The names that a host pattern stands for; itself when it has no range.

    ``pi-[1:3]`` -> pi-1, pi-2, pi-3. The end is included; leading zeros of the start give the width.

    Raises:
        ValueError: a range is empty or mixes letters and numbers, or there are more than `MAX_HOSTS` names.
    """
    parts: list[list[str]] = []
    end = 0
    names = 1
    for found in _RANGE.finditer(pattern):
        choices = _range(found.group(1), found.group(2), int(found.group(3) or 1))
        if not choices:
            raise ValueError(f"{found.group()} is empty or mixes letters and numbers; for example [1:8] or [a:f]")
        parts += [[pattern[end : found.start()]], choices]
        end = found.end()
        names *= len(choices)
    if names > MAX_HOSTS:
        raise ValueError(f"makes more than {MAX_HOSTS} hosts, too many to be meant")
    return ["".join(choice) for choice in product(*parts, [pattern[end:]])]


def _range(first: str, last: str, step: int) -> list[str]:
    if first.isdigit() != last.isdigit() or step < 1:
        return []
    if first.isdigit():
        width = len(first) if first.startswith("0") else 0
        numbers = range(int(first), int(last) + 1, step)
        return [str(number).zfill(width) for number in numbers[: MAX_HOSTS + 1]]
    return [chr(code) for code in range(ord(first), ord(last) + 1, step) if chr(code).isalpha()]


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    yield from content.items() if isinstance(content, dict) else ()


def _variables(content: Any, path: KeyPath) -> dict[str, Variable]:
    return {name: Variable(value, (*path, name)) for name, value in _entries(content)}


def _note(inventory: AnsibleInventory, path: KeyPath, message: str) -> None:
    inventory.problems.append(inventory.document.problem(path, message))
