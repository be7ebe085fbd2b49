"""What the columns of a reevaluated cell's tasks are, as SQL: over the record, what the replay came to, and other rows.

The record's row is ``b``, the row of another cell with the ingredients ``p``, the results of the replay ``r``, as
`orchestrator.replay.part_rows` names them: ``p`` counts only where ``r.other`` is a row.
"""

from __future__ import annotations

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.ingredients import FAILED
from edgebed.trace.runs import sql_text
from edgebed.trace.schema import STAGES, TaskRecord, columns
from edgebed.types import Site
from orchestrator.replay.judged import RECOMPUTED, RECORDED, STATUS

BACKEND = "replayed"
OF_THE_DECISION = ("decision_late", "simulated", "recorded", "recomputed", "modelled", "warm_up", "unplanned")
"""Flags that do not carry over with an ingredient from another row."""

AS_RECORDED, FROM_OWN, FROM_OTHER, FROM_PROFILE, NOT_DONE = range(5)
"""``origin``: where a row comes from: it is the record's; or its ingredients are those of the record's row, of another
cell's, of a profile; or it is not done and has none."""


_KNOWN = 1 + [name for name, _ in columns(TaskRecord)].index("deadline_s")
"""The columns up to that one say what came, and not what was decided."""


def known_beforehand(cell: CellSpec) -> list[tuple[str, str, str]]:
    """The first columns of ``tasks``, before anything is decided: name, type, expression over the record ``b``."""
    special = _identity(cell)
    return [(name, kind, special.get(name, f"b.{name}")) for name, kind in columns(TaskRecord)[:_KNOWN]]


def decided(cell: CellSpec, words: dict[str, str]) -> list[tuple[str, str, str]]:
    """The other ones, over the record ``b``, the other row ``p``, the results ``r``."""
    special = _flags() | _ingredients(cell)
    anew = _anew(words)
    found = []
    for name, kind in columns(TaskRecord)[_KNOWN:]:
        if name in special:
            expression = special[name]
        elif name in anew:
            expression = f"CASE WHEN r.origin = {AS_RECORDED} THEN b.{name} ELSE {anew[name]} END"
        else:
            expression = f"b.{name}"
        found.append((name, kind, expression))
    return found


def _identity(cell: CellSpec) -> dict[str, str]:
    return {
        "run_id": sql_text(cell.run_id),
        "cell_id": sql_text(cell.cell_id),
        "policy": sql_text(cell.policy),
        "task_id": f"concat({sql_text(cell.cell_id + '/')}, b.key)",
        "backend": sql_text(BACKEND),
        "attempt": "1",
    }


def _flags() -> dict[str, str]:
    kept = f"[{', '.join(sql_text(flag) for flag in OF_THE_DECISION)}]"
    status = list_sql(list(STATUS))
    ingredients = "coalesce(CASE WHEN r.other >= 0 THEN p.flags END, b.flags)"
    moved = f"list_filter({ingredients}, lambda flag: NOT list_contains({kept}, flag))"
    emulated = "list_filter(b.flags, lambda flag: flag = 'emulated')"
    measured = f"CASE WHEN r.status = {RECOMPUTED} THEN {moved} ELSE {emulated} END"
    origin = "list_filter(b.flags, lambda flag: flag IN ('warm_up', 'simulated'))"
    return {
        "flags": (
            f"list_concat(CASE WHEN r.status = {RECORDED} THEN b.flags ELSE list_concat({origin}, {measured}) END, "
            f"[{status}[r.status + 1]])"
        ),
    }


def _anew(words: dict[str, str]) -> dict[str, str]:
    """Columns of rows that were not recorded as they are, but for `_ingredients`."""
    return {
        "link_rate_measured_bps": (
            f"CASE WHEN r.origin < {NOT_DONE} AND r.xsite > {int(Site.DEVICE)} AND r.air_s > 0 "
            "THEN 8.0 * b.payload_bytes * r.xframes / b.frames / r.air_s END"
        ),
        "requested_site": f"{words['sites']}[r.rsite + 1]",
        "requested_server": f"{words['servers']}[r.rserver + 1]",
        "requested_channel": "r.rchannel",
        "site": f"{words['sites']}[r.xsite + 1]",
        "server": f"{words['servers']}[r.xserver + 1]",
        "channel": "r.xchannel",
        "edge_fraction": "r.xframes / b.frames",
        "edge_frames": "r.xframes",
        "cpu_fraction": "1.0",
        "power_fraction": "1.0",
        "decision_epoch": "b.epoch",
        "policy_version": f"CASE WHEN r.version >= 0 THEN {words['versions']}[r.version + 1] ELSE b.policy_version END",
        "decided_by": f"CASE WHEN r.version >= 0 THEN {words['by']} ELSE b.decided_by END",
        "decision_s": "r.decision_s",
        "decision_compute_s": "NULL",
        "outcome": f"{words['outcomes']}[r.outcome + 1]",
        "reason": f"{words['reasons']}[r.reason + 1]",
        **{name: f"CASE WHEN r.origin < {NOT_DONE} THEN r.{name} END" for name in ("latency_s", *STAGES)},
        "deadline_met": "CASE WHEN r.met >= 0 THEN r.met = 1 END",
    }


def _ingredients(cell: CellSpec) -> dict[str, str]:
    """Columns that come from the row with the ingredients, as a recorded row's come from itself."""

    def ingredient(name: str, modelled: str = "") -> str:
        from_profile = f" WHEN r.origin = {FROM_PROFILE} THEN {modelled}" if modelled else ""
        return (
            f"CASE WHEN r.origin <= {FROM_OWN} THEN b.{name} WHEN r.origin = {FROM_OTHER} THEN p.{name}"
            f"{from_profile} END"
        )

    energy = {
        "device_energy_j": ingredient("device_energy_j", "r.joules"),
        "server_energy_j": ingredient("server_energy_j", "r.server_joules"),
    }
    return {
        "link_rate_bps": (
            f"CASE WHEN r.other >= 0 AND r.xsite > {int(Site.DEVICE)} THEN p.link_rate_bps ELSE b.link_rate_bps END"
        ),
        "clock_error_s": ingredient("clock_error_s"),
        "cost": _cost(cell, energy),
        "device_cpu_s": ingredient("device_cpu_s", "r.cpu"),
        "server_cpu_s": ingredient("server_cpu_s", "r.server_cpu"),
        **energy,
        "energy_source": ingredient("energy_source", "CASE WHEN r.joules IS NOT NULL THEN 'estimated:profile' END"),
        "energy_error_j": ingredient("energy_error_j", "r.error_j"),
        "predicted": ingredient("predicted"),
        "label": "coalesce(b.label, CASE WHEN r.other >= 0 THEN p.label END)",
        "correct": ingredient("correct"),
    }


def _cost(cell: CellSpec, energy: dict[str, str]) -> str:
    """As `edgebed.trace.cost.task_cost` has it."""
    reward = cell.reward
    joules = f"(({energy['device_energy_j']}) + ({energy['server_energy_j']}))"
    used = f" + {reward.energy!r} * {joules}" if reward.energy > 0 else ""
    miss = f" + CASE WHEN r.met = 1 THEN 0.0 ELSE {reward.miss_penalty!r} END"
    failed = reward.latency * cell.timeouts.task_s + reward.miss_penalty
    return (
        f"CASE WHEN r.origin = {AS_RECORDED} THEN b.cost "
        f"WHEN r.origin < {NOT_DONE} THEN {reward.latency!r} * r.latency_s{used}{miss} "
        f"WHEN r.outcome = {FAILED} THEN {failed!r} END"
    )


def list_sql(names: list[str]) -> str:
    """A list of texts; never an empty one, which would have no type."""
    return f"[{', '.join(sql_text(name) for name in names)}]" if names else "['']"
