"""The text of ``plan.yaml``: for people to read, and exactly what was written when it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from edgebed.errors import BadInput, Problem

_HEADER = """\
# What a run does, decided before it started. Written by edgebed and read again by `edgebed resume` and the report;
# its hash guards it, so do not edit it: change the experiment and run that.
"""


class _OnOneLine(dict[str, Any]):
    """A mapping that is written as ``{a: b}``, as far as a line is wide."""


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml where it is there
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _OnOneLine,
    lambda dumper, mapping: dumper.represent_mapping("tag:yaml.org,2002:map", mapping.items(), flow_style=True),
)


def _list(dumper: Any, items: list[Any]) -> yaml.Node:
    """Numbers and words on one line, everything else an item a line."""
    is_flat = not any(isinstance(item, list | tuple | dict) for item in items)
    node: yaml.Node = dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_flat)
    return node


_Dumper.add_representer(list, _list)


MANY_HOSTS = 100
"""A plan of more hosts is written as JSON, which is YAML too and a hundred times faster to read."""


def plan_to_text(plain: dict[str, Any]) -> str:
    """A plan's plain data as the text of ``plan.yaml``."""
    if len(plain["devices"]) + len(plain["edge_servers"]) > MANY_HOSTS:
        return _HEADER + _as_json(plain)
    lines = {key: [_OnOneLine(each) for each in plain[key]] for key in ("policies", "cells", "tasks")}
    short = plain | lines | {"seeds": plain["seeds"]}
    text: str = yaml.dump(
        short, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )
    return _HEADER + text


def _as_json(plain: dict[str, Any]) -> str:
    """An item of each of its lists a line."""
    parts = []
    for key, value in plain.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n  ".join(json.dumps(item, allow_nan=False) for item in value)
            parts.append(f"{json.dumps(key)}: [\n  {items}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def plain_yaml(data: bytes) -> Any:
    """What a plan's text says, JSON or not.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    if data.startswith(_HEADER.encode() + b"{"):
        try:
            return json.loads(data[len(_HEADER.encode()) :])
        except ValueError:  # damaged: YAML will say where
            pass
    return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (safe)


def plan_from_text(path: Path) -> dict[str, Any]:
    """The plain data of a ``plan.yaml``, not checked.

    Raises:
        BadInput: it cannot be read, is not YAML, or not a mapping.
    """
    try:
        plain = plain_yaml(path.read_bytes())
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise BadInput(Problem(f"is not YAML: {error}", file=str(path))) from None
    if not isinstance(plain, dict):
        raise BadInput(Problem("is not a plan: expected a mapping", file=str(path)))
    return plain
