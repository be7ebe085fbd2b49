"""What is left to do once all rows are in the run folder: tables, verdict, report. Repeatable."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgebed.trace.manifest import Manifest, write_manifest
from orchestrator.attempts import Attempts
from orchestrator.plan_file import Plan
from orchestrator.provenance import model_of
from orchestrator.unreported import planned_rows


def seal_run(folder: Path, plan: Plan, attempts: Attempts, manifest: Manifest) -> None:
    """Write the tables of a run, and what they come to into its manifest.

    Raises:
        RunConflict: this edgebed plans other tasks than the one that made the plan.
        MissingExtra: DuckDB is not installed.
    """
    # Imported here: DuckDB takes a while to load, and nothing before needs it.
    from orchestrator.seal import seal

    specs = []
    for cell in plan.cells:
        latest = attempts.latest(cell.cell_id)
        specs.append(cell.spec(latest.serial, latest.attempt) if latest else cell.spec(1, 1))
    counts = seal(folder, specs, planned_rows(plan, attempts))
    numbers = msgspec.structs.asdict(counts) if isinstance(counts, msgspec.Struct) else _numbers(counts)
    manifest.counts = numbers
    manifest.problems = [*manifest.problems, *counts.problems]
    manifest.model = model_of(plan)
    write_manifest(folder, manifest)


def _numbers(counts: object) -> dict[str, int]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(counts).items() if isinstance(value, int)}  # type: ignore[call-overload]
