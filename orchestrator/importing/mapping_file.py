"""The mapping of a foreign trace: which of its columns are which of ours, in which unit. See ``docs/data.md``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import Field, ValidationError, model_validator

from edgebed.errors import Problem
from edgebed.trace.schema import SCHEMA_VERSION, STAGES, TaskRecord
from edgebed.types import Outcome, Site
from orchestrator.documents import load_document
from orchestrator.experiment_file import RewardChoice
from orchestrator.inventory import known_boards
from orchestrator.validation import Name, Strict, problems_of, raise_problems, unknown_key, unknown_name
from workloads import workload_names

MADE_HERE = frozenset({"run_id", "cell_id", "task_id", "epoch", "backend", "attempt", "flags", "policy", "seed"})
"""Columns of the trace that are not taken from a source: they are made, or have keys of their own."""

LISTS = frozenset({"predicted", "label"})
NUMBERS: dict[str, type] = {}
"""Columns of numbers, and their type; the others are texts, but for ``deadline_met``."""

for _field in msgspec.structs.fields(TaskRecord):
    _kinds = set(getattr(_field.type, "__args__", (_field.type,)))
    if _kinds & {int, float}:
        NUMBERS[_field.name] = int if int in _kinds else float

COLUMNS = tuple(name for name in TaskRecord.__struct_fields__ if name not in MADE_HERE | LISTS)
REQUIRED = ("device_id", "arrived_s")
SITES = tuple(site.label for site in Site)
OUTCOMES = tuple(outcome.value for outcome in Outcome)


class Source(Strict):
    """Where a value comes from.

    ``{column: NAME, scale: 0.001, offset: 0}``, ``{column: NAME, values: {...}}`` or ``{value: ...}``; a bare name is a
    column.

    Attributes:
        column: of the source's header. An empty field is unknown.
        scale, offset: of numbers: ``field * scale + offset`` has our unit.
        values: of texts: what each stands for; any other is an error.
        value: the same for every row.
    """

    column: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    values: dict[str, str | int | float | bool] | None = None
    value: str | int | float | bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("values"), dict):
            return {**given, "values": {str(key): value for key, value in given["values"].items()}}
        return {"column": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_of_two(self) -> Source:
        if (self.column is None) == (self.value is None):
            raise ValueError("needs either `column` or `value`")
        return self


class HostsOfMap(Strict):
    """What the hosts of the trace are; of each group all alike.

    Attributes:
        board: a board's name, see `edgebed list boards`.
        link_rate_bps: of a device's uplink; 0: unknown. workers: of an edge server.
        names: of edge servers, in the order that decisions index; devices are those of the source.
    """

    board: str = "generic-x86"
    link_rate_bps: float = Field(default=0.0, ge=0)
    workers: int = Field(default=1, ge=1)
    names: list[Name] = Field(default_factory=list)


class ImportMap(Strict):
    """A mapping file's keys."""

    schema_version: int = SCHEMA_VERSION
    name: Name = Field(description="names the folder of the runs")
    columns: dict[str, Source] = Field(description="our columns, see docs/trace.md, and where each comes from")
    policy: Source = Source(value="recorded")
    seed: Source = Source(value=0)
    epoch_s: float = Field(gt=0, le=1e9, description="seconds between decisions")
    delimiter: Literal[",", ";", "\t", "|"] = ","
    devices: HostsOfMap = HostsOfMap()
    edge_servers: HostsOfMap = HostsOfMap(names=["edge"])
    channels: int = Field(default=1, ge=1, le=1024)
    workload: str = "instant"
    reward: RewardChoice = RewardChoice()
    task_timeout_s: float = Field(default=10.0, gt=0, le=1e9)

    def disagreements(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Keys that are right by themselves and wrong here, and why."""
        if self.schema_version > SCHEMA_VERSION:
            text = f"is {self.schema_version}: columns of a newer edgebed; this one knows those of {SCHEMA_VERSION}"
            yield ("schema_version",), f"{text}: update it"
        for name in self.columns:
            if name in MADE_HERE:
                has_own_key = name in ("policy", "seed")
                yield ("columns", name), "has a key of its own, one level up" if has_own_key else "is made by edgebed"
            elif name not in COLUMNS:
                yield ("columns", name), unknown_key(name, COLUMNS)
        for name in (*REQUIRED, *(() if "outcome" in self.columns else ("latency_s",)), "deadline_s"):
            if name not in self.columns:
                yield ("columns",), f"{name} is missing; a column, or {{value: ...}}"
        for group in ("devices", "edge_servers"):
            board = getattr(self, group).board
            if board not in known_boards():
                yield (group, "board"), unknown_name("board", board, sorted(known_boards()))
        if self.workload not in workload_names():
            yield ("workload",), unknown_name("workload", self.workload, workload_names())
        for name, allowed in (("site", SITES), ("requested_site", SITES), ("outcome", OUTCOMES)):
            source = self.columns.get(name)
            meant = (
                [] if source is None else [*(source.values or {}).values(), *([source.value] if source.value else [])]
            )
            wrong = sorted({str(one) for one in meant} - set(allowed))
            if wrong:
                yield ("columns", name), f"means {', '.join(wrong)}; allowed: {', '.join(allowed)}"


FOR_REPLAY = ("requested_site", "decision_s", *STAGES, "frames", "cycles")
"""What replaying with another policy and calibrating need besides."""


def not_mapped(mapping: ImportMap) -> list[str]:
    """The columns of `FOR_REPLAY` that a mapping does not have."""
    return [name for name in FOR_REPLAY if name not in mapping.columns]


def load_mapping(path: Path) -> ImportMap:
    """Read a mapping file.

    Raises:
        BadInput: with everything that is wrong.
    """
    document = load_document(path)
    problems: list[Problem] = list(document.problems)
    mapping: ImportMap | None = None
    try:
        mapping = ImportMap.model_validate(document.data)
        problems += [document.problem(where, text) for where, text in mapping.disagreements()]
    except ValidationError as error:
        problems += problems_of(error, ImportMap, document)
    raise_problems(problems)
    assert mapping is not None
    return mapping
