"""Finish a run or a training: only what is missing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed resume runs/demo/latest",
    "edgebed resume runs/demo/20260731T081114Z --json",
    "edgebed resume runs/dc_drl-dc-drl/latest --executor processes",
)

TRAINING_FILE = "training.yaml"
"""As in `edgebed.learning.training_plan`, which loads numpy, and that must not be before `one_thread`."""


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a training.")],
    hosts: Annotated[
        Path | None, typer.Option(help="The hosts file; the one that the run was started with by default.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Of a training: where its cells run from now on: inline, processes or ray.")
    ] = "inline",
    ray_address: Annotated[
        str | None, typer.Option(help="Of a training: a running Ray cluster; else Ray is started here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Finish a run that was interrupted, has failed, or whose orchestrator was killed; or a training.

    Programs that still run the same plan are taken over, with the cell that they are in. Complete cells stay as they
    are; no result is ever overwritten. A training goes on from its last checkpoint, to the digits that it would have
    had without the interruption.
    """
    if any((folder / TRAINING_FILE).is_file() for folder in (run, run / "latest")):
        return _resume_training(run, executor, ray_address, Output(as_json))
    from edgebed.trace.runs import PLAN_FILE, find_run
    from orchestrator.cli.finish import finish, runner_for
    from orchestrator.plan_file import Plan
    from orchestrator.ways import ways_of_run

    folder = find_run(run).path
    plan = Plan.from_yaml(folder / PLAN_FILE)
    runner = runner_for(folder, plan, ways_of_run(plan, hosts))
    return finish(runner.resume(), Output(as_json))


def _resume_training(where: Path, executor: str, ray_address: str | None, output: Output) -> int:
    from orchestrator.cli.train import check_installed, one_thread

    one_thread()
    from orchestrator.training.folder import find_training
    from orchestrator.training.session import train_in_folder

    check_installed(executor, ray_address)
    folder = find_training(where)
    assert folder is not None
    return train_in_folder(folder, executor, ray_address, output)
