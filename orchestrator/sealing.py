"""What is left to do once all rows are in the run folder: tables, verdict, report. Repeatable."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.errors import BadInput
from edgebed.trace.manifest import Manifest, write_manifest
from edgebed.trace.runs import Run
from orchestrator.attempts import Attempts
from orchestrator.plan_file import Plan
from orchestrator.provenance import VIRTUAL, model_of
from orchestrator.stop_rule import read_stop_state
from orchestrator.unreported import planned_rows

if TYPE_CHECKING:
    from orchestrator.report.summary import Summary
    from orchestrator.seal import SealedCounts

_log = logging.getLogger(__name__)

REPORT_FILE = "report.html"


def is_finished(folder: Path, manifest: Manifest, attempts: Attempts) -> bool:
    """Is nothing left to do for a run: all cells, tables and verdict are there?

    Raises:
        BadInput: it was complete, and has neither its tables nor the segments that they were made of.
    """
    if manifest.state != "complete":
        return False
    if manifest.verdict is not None and Run(folder).is_sealed:
        return True
    if not read_stop_state(folder).not_needed.issuperset(attempts.missing):
        raise BadInput(
            f"{folder} is complete, but a table is missing, and segments to make it of are, too; take another copy of "
            "the run"
        )
    return False


def seal_run(folder: Path, plan: Plan, attempts: Attempts, manifest: Manifest) -> Summary | None:
    """Write the tables of a run, what they come to into its manifest, and its report.

    Returns:
        What the report says; None when it could not be written.

    Raises:
        RunConflict: this edgebed plans other tasks than the one that made the plan.
        MissingExtra: DuckDB is not installed.
    """
    # Imported here: nothing before needs it.
    from orchestrator.seal import seal

    specs = []
    for cell in plan.cells:
        latest = attempts.latest(cell.cell_id)
        specs.append(cell.spec(latest.serial, latest.attempt) if latest else cell.spec(1, 1))
    virtual = {name for name, facts in manifest.hosts.items() if VIRTUAL in facts}
    emulated = virtual | {host.name for host in plan.hosts if host.slowdown > 1.0}
    planned = planned_rows(plan, attempts, read_stop_state(folder).not_needed)
    return conclude_run(folder, plan, manifest, seal(folder, specs, planned, emulated))


def conclude_run(folder: Path, plan: Plan, manifest: Manifest, counts: SealedCounts) -> Summary | None:
    """Write what the sealed tables of a run come to into its manifest, judge it, and write its report.

    Returns:
        What the report says; None when it could not be written.

    Raises:
        MissingExtra: DuckDB is not installed.
    """
    from orchestrator.run_facts import gather_facts
    from orchestrator.verdict import judge

    manifest.counts = {
        name: getattr(counts, name)
        for name in ("planned", "done", "failed", "unknown", "unreported", "unplanned", "epochs", "samples", "events")
    }
    manifest.problems = list(dict.fromkeys([*manifest.problems, *counts.problems]))
    manifest.model = model_of(plan)
    verdict = judge(gather_facts(Run(folder), counts.planned, manifest.problems))
    manifest.verdict, manifest.reasons = verdict.verdict.value, list(verdict.reasons)
    write_manifest(folder, manifest)
    return _report(folder, manifest)


def _report(folder: Path, manifest: Manifest) -> Summary | None:
    """Write the report. A report can be made again at any time; so no failure of it is one of the run."""
    from orchestrator.report.html import write_report

    try:
        return write_report([folder], folder / REPORT_FILE)[0]
    except Exception as error:  # whatever it is, the tables are written and have to be told of
        _log.exception("the report could not be written")
        manifest.problems.append(f"the report could not be written: {error}; `edgebed report {folder}` tries again")
        write_manifest(folder, manifest)
        return None
