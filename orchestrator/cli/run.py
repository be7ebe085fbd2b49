"""Run an experiment on its hosts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgebed.errors import BadInput
from orchestrator.cli.output import Output
from orchestrator.shipped import LOCAL_HOSTS

EXAMPLES = (
    "edgebed run inventory/experiments/demo.yaml",
    "edgebed run inventory/experiments/demo.yaml --set seeds=[7] --set epochs=10 --runs runs --json",
)

HOSTS = "hosts"
LATER = ("simulated", "replayed")


def command(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file.")],
    hosts: Annotated[Path, typer.Option(help="The hosts' YAML file, an Ansible inventory.")] = LOCAL_HOSTS,
    backend: Annotated[str, typer.Option(help="What turns decisions into outcomes; hosts, for now.")] = HOSTS,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in reward.energy=0.5.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder in which the run gets its own.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Run an experiment on its hosts, collect every row, and write tables and report.

    Ctrl-C stops it in order: all that exists is collected, and `edgebed resume` goes on later.
    """
    check_backend(backend)
    from orchestrator.cli.finish import finish, runner_for
    from orchestrator.plan import create_run_folder, plan_of, read_files
    from orchestrator.plan_file import Plan
    from orchestrator.ways import Ways

    read_experiment, inventory = read_files(experiment, hosts, changes or ())
    plan = plan_of(read_experiment, inventory)
    check_backend(plan.backend)
    ways = Ways(inventory)
    ways.check(plan.hosts)  # better known before a folder is made
    folder = create_run_folder(plan, runs)
    words = ["edgebed", "run", str(experiment), "--hosts", str(hosts)]
    words += [word for change in changes or () for word in ("--set", change)]
    runner = runner_for(folder, Plan.from_yaml(folder / "plan.yaml"), ways, shlex.join(words))
    return finish(runner.run(), Output(as_json))


def check_backend(name: str) -> None:
    """Is this backend there?

    Raises:
        BadInput: it comes later, or does not exist.
    """
    if name in LATER:
        raise BadInput(f"--backend {name} comes later; available now: {HOSTS}")
    if name != HOSTS:
        raise BadInput(f"--backend: there is no {name!r}; available now: {HOSTS}; later: {', '.join(LATER)}")
