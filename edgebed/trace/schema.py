"""Columns of the trace. Names, types and units are fixed; new columns are added at the end.

Unknown is None (NULL), never NaN and never a guess. A stage that a task did not enter is 0 when it is ``done``.
``SCHEMA_VERSION`` counts changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

SCHEMA_VERSION = 2


class TaskRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A row of ``tasks.parquet``: one planned task. Field order is column order; see ``docs/trace.md``."""

    # identity
    run_id: str
    cell_id: str
    policy: str
    seed: int
    device_id: str
    task_id: str
    epoch: int
    backend: str
    attempt: int
    # exogenous
    arrived_s: float
    content_id: str
    payload_bytes: int | None = None
    frames: int | None = None
    cycles: float | None = None
    deadline_s: float
    link_rate_bps: float | None = None
    link_rate_measured_bps: float | None = None
    # decision
    requested_site: str | None = None
    requested_server: str | None = None
    requested_channel: int | None = None
    site: str | None = None
    server: str | None = None
    channel: int | None = None
    edge_fraction: float | None = None
    edge_frames: int | None = None
    cpu_fraction: float | None = None
    power_fraction: float | None = None
    decision_epoch: int | None = None
    policy_version: str | None = None
    decided_by: str | None = None
    decision_s: float | None = None
    decision_compute_s: float | None = None
    # outcome
    outcome: str
    reason: str | None = None
    latency_s: float | None = None
    device_queue_s: float | None = None
    device_compute_s: float | None = None
    uplink_queue_s: float | None = None
    uplink_s: float | None = None
    server_queue_s: float | None = None
    server_compute_s: float | None = None
    downlink_s: float | None = None
    clock_error_s: float | None = None
    deadline_met: bool | None = None
    cost: float | None = None
    # resources
    device_cpu_s: float | None = None
    server_cpu_s: float | None = None
    device_energy_j: float | None = None
    server_energy_j: float | None = None
    energy_source: str | None = None
    energy_error_j: float | None = None
    # result
    predicted: list[int] | None = None
    label: list[int] | None = None
    correct: int | None = None
    # validity
    flags: list[str] = []


STAGES: tuple[str, ...] = (
    "device_queue_s",
    "device_compute_s",
    "uplink_queue_s",
    "uplink_s",
    "server_queue_s",
    "server_compute_s",
    "downlink_s",
)
"""What follows ``decision_s``; with it they add up to ``latency_s``."""


class EpochRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A row of ``epochs.parquet``: one decision, joint (``device_id`` empty) or of one device.

    Attributes:
        observation: joint: ``values`` row by row, then ``server``; of one device: its values, then ``server``.
        action: six numbers a slot: site, server, channel, edge_fraction, cpu_fraction, power_fraction; empty in the
            final row of a cell, which holds only the last observation.
    """

    run_id: str
    cell_id: str
    epoch: int
    device_id: str
    observation: list[float] | None = None
    action: list[float] | None = None
    behaviour_logp: float | None = None
    reward: float | None = None
    reward_complete: bool | None = None
    terminated: bool | None = None
    truncated: bool | None = None
    policy_version: str | None = None
    decided_by: str | None = None
    decision_compute_s: float | None = None


class SampleRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A row of ``samples.parquet``: how one host was at one instant of the run clock."""

    host: str
    t_s: float
    cpu: float | None = None
    frequency_hz: float | None = None
    temperature_c: float | None = None
    throttle_word: int | None = None
    memory_bytes: int | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    power_w: float | None = None
    power_source: str | None = None
    other_cpu: float | None = None
    wifi_power_save: bool | None = None


class EventRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A row of ``events.parquet``: something that happened, ``detail`` as JSON text."""

    t_s: float
    host: str
    kind: str
    detail: str = ""


class Record(msgspec.Struct, array_like=True):
    """A row on its way: its outbox sequence number, the attempt it belongs to, its table, its fields.

    Attributes:
        kind: ``task``, ``epoch``, ``sample`` or ``event``.
        serial: serial of the cell's attempt; 0 outside a cell.
        row: the MessagePack of the row's Struct.
    """

    sequence: int
    serial: int
    kind: str
    row: bytes


RECORD_TYPES: dict[str, type[msgspec.Struct]] = {
    "task": TaskRecord,
    "epoch": EpochRecord,
    "sample": SampleRecord,
    "event": EventRecord,
}


class Column(NamedTuple):
    """A column's name and its DuckDB type."""

    name: str
    sql_type: str


_SQL_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_NARROW = {
    "frames": "INTEGER",
    "requested_channel": "INTEGER",
    "channel": "INTEGER",
    "edge_frames": "INTEGER",
    "correct": "INTEGER",
}
_LISTS = {
    "predicted": "INTEGER[]",
    "label": "INTEGER[]",
    "flags": "VARCHAR[]",
    "observation": "FLOAT[]",
    "action": "FLOAT[]",
}


def columns(record_type: type[msgspec.Struct]) -> tuple[Column, ...]:
    """The columns of a table, in order, with their types."""
    found = []
    for info in msgspec.structs.fields(record_type):
        name = info.name
        sql_type = _LISTS.get(name) or _NARROW.get(name) or _SQL_TYPES[_scalar(info.type)]
        found.append(Column(name, sql_type))
    return tuple(found)


def _scalar(annotation: Any) -> type:
    options = [option for option in getattr(annotation, "__args__", (annotation,)) if option is not type(None)]
    scalar = options[0]
    assert isinstance(scalar, type)
    return scalar


NOT_RUN = "not_run"
"""Reason of tasks of a cell, or the end of one, that never ran."""

NOT_NEEDED = "not_needed"
"""Reason of tasks of a cell that the experiment's own rule made superfluous, see `orchestrator.stop_rule`."""

NEVER_RUN = frozenset({NOT_RUN, NOT_NEEDED})
"""Reasons of tasks that say nothing about a policy; statistics leave them out."""

FINAL_ORDER = {"done": 3, "failed": 2, "unknown": 1}
"""Which of two reports about one task counts: a late result upgrades ``unknown``, never the other way round."""
