"""Run an experiment, on its hosts or simulated."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebed.errors import BadInput
from orchestrator.cli.output import Output
from orchestrator.shipped import LOCAL_HOSTS

if TYPE_CHECKING:
    from orchestrator.inventory import Inventory
    from orchestrator.plan_file import Plan

EXAMPLES = (
    "edgebed run inventory/experiments/demo.yaml",
    "edgebed run inventory/experiments/demo.yaml --backend simulated",
    "edgebed run inventory/experiments/demo.yaml --set seeds=[7] --set epochs=10 --runs runs --json",
)

HOSTS, SIMULATED = "hosts", "simulated"


def command(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file.")],
    hosts: Annotated[Path, typer.Option(help="The hosts' YAML file, an Ansible inventory.")] = LOCAL_HOSTS,
    backend: Annotated[
        str | None,
        typer.Option(help="What turns decisions into outcomes: hosts or simulated; the experiment says by default."),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A profile from `edgebed calibrate`, for the simulated backend.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in reward.energy=0.5.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder in which the run gets its own.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Run an experiment on its hosts, or in virtual time; collect every row, and write tables and report.

    Simulated it connects to nothing and starts nothing: the same file, policies, tables and report, in seconds.

    Ctrl-C stops it in order: all that exists is collected, and `edgebed resume` goes on later.
    """
    check_backend(backend)
    from orchestrator.plan import plan_of, read_files

    overrides = [*_overrides(backend, profile), *(changes or ())]
    plan_files = read_files(experiment, hosts, overrides)
    plan = plan_of(*plan_files)
    words = ["edgebed", "run", str(experiment), "--hosts", str(hosts)]
    words += [word for change in overrides for word in ("--set", change)]
    if plan.backend == SIMULATED:
        return _simulate(plan, plan_files[0].profile, runs, shlex.join(words), Output(as_json))
    return _run_on_hosts(plan, plan_files[1], runs, shlex.join(words), Output(as_json))


def _overrides(backend: str | None, profile: Path | None) -> list[str]:
    """Options as what they are: keys of the experiment."""
    told = [] if backend is None else [f"backend={backend}"]
    return told if profile is None else [*told, f"profile={json.dumps(str(profile.absolute()))}"]


def _run_on_hosts(plan: Plan, inventory: Inventory, runs: Path, command_line: str, output: Output) -> int:
    from orchestrator.cli.finish import finish, runner_for
    from orchestrator.plan import create_run_folder
    from orchestrator.ways import Ways

    ways = Ways(inventory)
    ways.check(plan.hosts)  # better known before a folder is made
    folder = create_run_folder(plan, runs)
    runner = runner_for(folder, read_plan(folder), ways, command_line)
    return finish(runner.run(), output)


def _simulate(plan: Plan, profile: str, runs: Path, command_line: str, output: Output) -> int:
    from orchestrator.cli.finish import finish, simulated_runner_for
    from orchestrator.plan import create_run_folder
    from orchestrator.simulated_profile import given_profile

    folder = create_run_folder(plan, runs)
    runner = simulated_runner_for(folder, read_plan(folder), command_line)
    return finish(runner.run(given_profile(profile)), output)


def read_plan(folder: Path) -> Plan:
    """The plan in a run's folder."""
    from edgebed.trace.runs import PLAN_FILE
    from orchestrator.plan_file import Plan

    return Plan.from_yaml(folder / PLAN_FILE)


def check_backend(name: str | None) -> None:
    """Is this a backend that a run can have?

    Raises:
        BadInput: it is not; the text says what can.
    """
    if name == "replayed":
        raise BadInput("--backend replayed: `edgebed replay RUN` does that; available here: hosts, simulated")
    if name not in (None, HOSTS, SIMULATED):
        raise BadInput(f"--backend: there is no {name!r}; available: hosts, simulated")
