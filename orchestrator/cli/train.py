"""Train policies in a scenario, with one learner, all seeds at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed train dc_drl --scenario dc-drl --set n=10 --seeds 0,1",
    "edgebed train cross_entropy --scenario dc-drl --set n=5 --set learner.population=64 --steps 20000 --json",
    "edgebed train --config runs/dc_drl-dc-drl/latest/training.yaml --seeds 2..6 --executor processes",
)


Executor = Annotated[
    str, typer.Option("--executor", help="Where a training's cells run: inline, processes or ray.", metavar="NAME")
]
RayAddress = Annotated[
    str | None, typer.Option(help="With --executor ray: a running cluster, as in 10.0.0.1:6379; else it starts here.")
]
CheckpointEvery = Annotated[
    float,
    typer.Option("--checkpoint-every", metavar="SECONDS", min=0.0, help="Of a training: time between checkpoints."),
]
CHECKPOINT_EVERY_S = 60.0


def one_thread() -> None:
    """Libraries of linear algebra use one thread, in this process as in those of the cells.

    More would not make small networks quicker, and would let the last digits depend on where a training runs.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read when such a library is loaded, which no verb has done yet


def command(
    learner: Annotated[str | None, typer.Argument(help="A learner's name, see `edgebed list learners`.")] = None,
    scenario: Annotated[str | None, typer.Option(help="A scenario's name, see `edgebed list scenarios`.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Training seeds, as in 0,1,2 or 0..4; 0 by default. They train as one batch.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Environment steps a seed, all cells together; 60000 by default.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the scenario, the learner or the training; scenario.NAME, where several have one.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with learner, scenario, seeds, steps and settings.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder in which the training gets its own.")] = Path("runs"),
    executor: Executor = "inline",
    ray_address: RayAddress = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY_S,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> int:
    """Train policies in a scenario; write them, their curves and their result into a folder of their own.

    Ctrl-C stores it, and `edgebed resume` goes on later, to the same digit. Afterwards `edgebed evaluate SCENARIO
    --policy FOLDER/policies/seed-0` judges a policy on other episodes.
    """
    one_thread()
    from edgebed.learning import learner_class
    from orchestrator.training.folder import create_training_folder
    from orchestrator.training.session import Where, train_in_folder
    from orchestrator.training.settings import Request, plan_of, read_seeds

    numbers = None if seeds is None else read_seeds(seeds)
    plan = plan_of(Request(learner, scenario, numbers, steps, config, changes or ()))
    check_installed(executor, ray_address)
    learner_class(plan.learner).check(plan.task())
    folder = create_training_folder(plan, runs)
    output = Output(as_json)
    output.note(f"training: {folder}")
    return train_in_folder(folder, Where(executor, ray_address, checkpoint_every), output)


def check_installed(executor: str, ray_address: str | None) -> None:
    """Is what a training needs there? Better known before a folder is made.

    Raises:
        BadInput: there is no such executor, it takes no address, or no cluster is there.
        MissingExtra: TensorBoard or Ray is not installed.
    """
    from importlib.util import find_spec

    from edgebed.errors import MissingExtra
    from edgebed.learning.executor import check_name

    check_name(executor, ray_address)
    if ray_address is not None:
        from edgebed.learning.executor.ray import check_reachable

        check_reachable(ray_address)
    if find_spec("tensorboard") is None:
        raise MissingExtra("learning", "edgebed train")
