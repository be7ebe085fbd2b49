"""``sweep``: lists under it multiply into settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from edgebed.errors import Problem
from orchestrator.documents import Document, KeyPath, Origin, dotted, shown
from orchestrator.experiment_file import ExperimentFile

MAX_SETTINGS = 1000
BASE_SETTING = "base"
MAX_NAME_LENGTH = 32  # half of what a cell's name may have; the rest is for the policy's label and the seed

# What describes the comparison itself, and so is the same in all of it.
_NOT_SWEPT = frozenset(
    {"name", "policies", "devices", "seeds", "order", "backend", "profile", "sweep", "scenario", "stop"}
)


class Change(NamedTuple):
    """A value that a sweep sets.

    Attributes:
        position: of the value in its list. origin: where the list was written.
    """

    path: KeyPath
    value: Any
    position: int
    origin: Origin


def combine(document: Document) -> tuple[dict[str, tuple[Change, ...]], list[Problem]]:
    """Every combination of a sweep by its name, and what is wrong with the sweep.

    Without a sweep, or with a wrong one, there is one combination, `BASE_SETTING`, that changes nothing.
    """
    axes: list[list[Change]] = []
    problems: list[Problem] = []
    for where, path, values in _leaves(document.data.get("sweep"), ("sweep",), ()):
        message = _axis_problem(path, values)
        if message:
            problems.append(document.problem(where, message))
        else:
            origin = document.origin(where)
            axes.append([Change(path, value, position, origin) for position, value in enumerate(values)])
    problems += [document.problem(("sweep",), message) for message in _joint_problems(axes)]
    if problems or not axes:
        return {BASE_SETTING: ()}, problems
    combinations = list(product(*axes))
    return dict(zip(_names(combinations), combinations, strict=True)), []


def _leaves(node: Any, where: KeyPath, path: KeyPath) -> Iterator[tuple[KeyPath, KeyPath, Any]]:
    """Lists of a sweep: where they stand, and the key that they vary (dotted keys and nested ones mean the same)."""
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from _leaves(inner, (*where, key), (*path, *key.split(".")))
    elif path:  # else the sweep is no mapping at all, which the model reports
        yield where, path, node


def _axis_problem(path: KeyPath, values: Any) -> str | None:
    swept = [key for key in ExperimentFile.model_fields if key not in _NOT_SWEPT]
    if path[0] not in swept:
        return f"{path[0]} cannot be swept; allowed: {', '.join(swept)}"
    if not isinstance(values, list) or not values:
        return f"is {'an empty list' if values == [] else shown(values)}; expected a list of values to try"
    return None


def _joint_problems(axes: list[list[Change]]) -> Iterator[str]:
    paths = [axis[0].path for axis in axes]
    for path in dict.fromkeys(path for path in paths if paths.count(path) > 1):
        yield f"has {dotted(path)} twice"
    settings = math.prod(len(axis) for axis in axes)
    if settings > MAX_SETTINGS:
        yield f"makes {settings} settings; at most {MAX_SETTINGS} are allowed"


def _names(combinations: list[tuple[Change, ...]]) -> list[str]:
    """Names that people can read, or numbers where they would be too long or the same."""
    names = ["-".join(_change_name(change) for change in combination) for combination in combinations]
    if len({name.lower() for name in names}) == len(names) and max(map(len, names)) <= MAX_NAME_LENGTH:
        return names
    return [f"setting{number}" for number in range(1, len(combinations) + 1)]


def _change_name(change: Change) -> str:
    value = change.value
    text = str(value).lower() if isinstance(value, str | int | float) else str(change.position + 1)
    return re.sub(r"[^A-Za-z0-9._]+", "_", f"{change.path[-1]}_{text}")
