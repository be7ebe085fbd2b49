"""Finish a run: only what is missing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import Output

EXAMPLES = ("edgebed resume runs/demo/latest", "edgebed resume runs/demo/20260731T081114Z --json")


def command(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    hosts: Annotated[
        Path | None, typer.Option(help="The hosts file; the one that the run was started with by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Finish a run that was interrupted, has failed, or whose orchestrator was killed.

    Programs that still run the same plan are taken over, with the cell that they are in. Complete cells stay as they
    are; no result is ever overwritten.
    """
    from edgebed.trace.runs import PLAN_FILE, find_run
    from orchestrator.cli.finish import finish, runner_for
    from orchestrator.plan_file import Plan
    from orchestrator.ways import ways_of_run

    folder = find_run(run).path
    plan = Plan.from_yaml(folder / PLAN_FILE)
    runner = runner_for(folder, plan, ways_of_run(plan, hosts))
    return finish(runner.resume(), Output(as_json))
