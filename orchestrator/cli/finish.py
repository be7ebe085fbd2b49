"""What `edgebed run` and `edgebed resume` have in common: the runner, and how its outcome is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.clock import MonotonicClock
from edgebed.errors import MissingExtra
from edgebed.trace.runs import Run
from orchestrator.cli.output import Output
from orchestrator.inventory import Host
from orchestrator.plan_file import Plan
from orchestrator.progress import display_for
from orchestrator.remote.base import Remote
from orchestrator.runner import Runner, RunOutcome
from orchestrator.stop_rule import read_stop_state

if TYPE_CHECKING:
    from orchestrator.simulated_runner import SimulatedRunner

_NEEDED_AT_THE_END = ("duckdb", "jinja2", "matplotlib")


def runner_for(folder: Path, plan: Plan, connect: Callable[[Host], Remote], command: str = "") -> Runner:
    """A runner that shows its progress on standard error.

    Args:
        folder: the run's.
        plan: the one in it.
        connect: makes the `Remote` of a host.
        command: the command line that makes such a run.

    Raises:
        MissingExtra: something that is only needed at the end is not installed; better known now.
    """
    if not all(find_spec(name) for name in _NEEDED_AT_THE_END):
        raise MissingExtra("orchestrator", "running an experiment")
    return Runner(folder, plan, display_for(MonotonicClock()), command, connect=connect)


def simulated_runner_for(folder: Path, plan: Plan, command: str = "") -> SimulatedRunner:
    """A runner in virtual time that shows its progress on standard error; arguments and errors as above."""
    if not all(find_spec(name) for name in _NEEDED_AT_THE_END):
        raise MissingExtra("orchestrator", "running an experiment")
    from orchestrator.simulated_runner import SimulatedRunner

    return SimulatedRunner(folder, plan, display_for(MonotonicClock()), command)


def finish(outcome: RunOutcome, output: Output) -> int:
    """Tell how a run ended; returns the exit status."""
    print_outcome(outcome, output)
    output.answer(outcome.answer())
    return outcome.exit_status


def print_outcome(outcome: RunOutcome, output: Output) -> None:
    """Tell people how a run ended."""
    from orchestrator.report.terminal import print_summary, terminal

    manifest = outcome.manifest
    for problem in manifest.problems:
        output.note(problem)
    print_summary(outcome.summary or Run(outcome.folder), terminal(to_standard_error=output.as_json))
    output.text(f"{outcome.folder}: {manifest.state}, {outcome.cells_complete} of {outcome.cells} cells complete")
    if stopped := read_stop_state(outcome.folder).text:
        output.text(f"{stopped}.")
    elif manifest.state != "complete":
        output.text(f"`edgebed resume {outcome.folder}` goes on")
