"""What `edgebed run` and `edgebed resume` have in common: the runner, and how its outcome is told."""

from __future__ import annotations

from pathlib import Path

from edgebed.clock import MonotonicClock
from orchestrator.cli.output import Output
from orchestrator.plan_file import Plan
from orchestrator.progress import display_for
from orchestrator.runner import Runner, RunOutcome


def runner_for(folder: Path, plan: Plan, command: str = "") -> Runner:
    """A runner that shows its progress on standard error."""
    return Runner(folder, plan, display_for(MonotonicClock()), command)


def finish(outcome: RunOutcome, output: Output) -> int:
    """Tell how a run ended; returns the exit status."""
    manifest = outcome.manifest
    output.text(f"{outcome.folder}: {manifest.state}, {outcome.cells_complete} of {outcome.cells} cells complete")
    for problem in manifest.problems:
        output.note(problem)
    output.answer(outcome.answer())
    return outcome.exit_status
