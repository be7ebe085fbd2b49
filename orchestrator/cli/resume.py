"""Finish a run or a training: only what is missing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebed.errors import BadInput
from orchestrator.cli.output import Output
from orchestrator.cli.train import (
    CHECKPOINT_EVERY_S,
    CheckpointEvery,
    Executor,
    RayAddress,
    check_installed,
    one_thread,
)

EXAMPLES = (
    "edgebed resume runs/demo/latest",
    "edgebed resume runs/demo/20260731T081114Z --json",
    "edgebed resume runs/dc_drl-dc-drl/latest --executor processes",
)


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a training.")],
    hosts: Annotated[
        Path | None, typer.Option(help="The hosts file; the one that the run was started with by default.")
    ] = None,
    executor: Executor = "inline",
    ray_address: RayAddress = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Finish a run that was interrupted, has failed, or whose orchestrator was killed; or a training.

    Programs that still run the same plan are taken over, with the cell that they are in. Complete cells stay as they
    are; no result is ever overwritten. A training goes on from its last checkpoint, to the digits that it would have
    had without the interruption.
    """
    from edgebed.learning.training_place import find_training

    training = find_training(run)
    if training is not None:
        return _resume_training(training, executor, ray_address, checkpoint_every, Output(as_json))
    from edgebed.trace.runs import PLAN_FILE, find_run
    from orchestrator.cli.finish import finish, runner_for, simulated_runner_for
    from orchestrator.plan_file import Plan
    from orchestrator.ways import ways_of_run

    folder = find_run(run).path
    plan = Plan.from_yaml(folder / PLAN_FILE)
    if plan.backend == "replayed":
        raise BadInput(
            f"{folder} is a reevaluation, which takes seconds: start it again with `edgebed replay`, or with "
            "`edgebed run --backend replayed`; its manifest has the command"
        )
    if plan.backend == "simulated":
        return finish(simulated_runner_for(folder, plan).resume(), Output(as_json))
    runner = runner_for(folder, plan, ways_of_run(plan, hosts))
    return finish(runner.resume(), Output(as_json))


def _resume_training(
    folder: Path, executor: str, ray_address: str | None, checkpoint_every_s: float, output: Output
) -> int:
    one_thread()  # before numpy is loaded
    from orchestrator.training.session import Where, train_in_folder

    check_installed(executor, ray_address)
    return train_in_folder(folder, Where(executor, ray_address, checkpoint_every_s), output)
