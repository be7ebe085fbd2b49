"""Run an experiment: on its hosts, simulated, or on a recorded day."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
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
    "edgebed run inventory/traces/local-day/experiment.yaml --backend replayed --from inventory/traces/local-day",
    "edgebed run inventory/experiments/demo.yaml --set seeds=[7] --set epochs=10 --runs runs --json",
)

HOSTS, SIMULATED, REPLAYED = "hosts", "simulated", "replayed"


def command(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file.")],
    hosts: Annotated[
        Path | None,
        typer.Option(
            help="The hosts' YAML file, an Ansible inventory; replayed has the hosts of the recorded run.",
            show_default=str(LOCAL_HOSTS),
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="What turns decisions into outcomes: hosts, simulated or replayed; the experiment says by default."
        ),
    ] = None,
    recorded: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="For replayed: folder of the recorded run, or its experiment."),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A profile from `edgebed calibrate`, for the simulated and replayed backends.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in reward.energy=0.5.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder in which the run gets its own.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Run an experiment on its hosts, in virtual time, or on a recorded day; write tables and report.

    Simulated it connects to nothing and starts nothing: the same file, policies, tables and report, in seconds.
    Replayed its policies decide anew what was recorded in another run, as `edgebed replay --mode reevaluate` does.

    Ctrl-C stops it in order: all that exists is collected, and `edgebed resume` goes on later.
    """
    check_backend(backend)
    if backend is not None:
        check_recorded(backend, recorded)  # before any file is asked for
    overrides = [*_overrides(backend, profile), *(changes or ())]
    output, command_line = Output(as_json), _command_line(experiment, hosts, recorded, overrides)
    if recorded is not None:
        return _replay(experiment, hosts, overrides, recorded, runs, command_line, output)
    from orchestrator.plan import plan_of, read_files

    described, inventory = read_files(experiment, hosts or LOCAL_HOSTS, overrides)
    check_recorded(described.backend, recorded)
    plan = plan_of(described, inventory)
    if plan.backend == SIMULATED:
        return _simulate(plan, described.profile, runs, command_line, output)
    return _run_on_hosts(plan, inventory, runs, command_line, output)


def _overrides(backend: str | None, profile: Path | None) -> list[str]:
    """Options as what they are: keys of the experiment."""
    told = [] if backend is None else [f"backend={backend}"]
    return told if profile is None else [*told, f"profile={json.dumps(str(profile.absolute()))}"]


def _command_line(experiment: Path, hosts: Path | None, recorded: str | None, overrides: Sequence[str]) -> str:
    """What reproduces the run, for its manifest."""
    words = ["edgebed", "run", str(experiment)]
    if recorded is not None:
        words += ["--from", recorded]
    if hosts is not None or recorded is None:
        words += ["--hosts", str(hosts or LOCAL_HOSTS)]
    return shlex.join([*words, *(word for change in overrides for word in ("--set", change))])


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

    if any(policy.learn for policy in plan.policies):
        from orchestrator.online.beginning import check_installed

        check_installed()
    folder = create_run_folder(plan, runs)
    runner = simulated_runner_for(folder, read_plan(folder), command_line)
    return finish(runner.run(given_profile(profile)), output)


def _replay(
    experiment: Path,
    hosts: Path | None,
    overrides: list[str],
    recorded: str,
    runs: Path,
    command_line: str,
    output: Output,
) -> int:
    from orchestrator.cli.replay import finish_replay, reevaluate
    from orchestrator.experiment import load_experiment
    from orchestrator.inventory import load_inventory
    from orchestrator.replay.of_experiment import plan_on_record
    from orchestrator.replay.planning import Target
    from orchestrator.replay.source import open_source

    described = load_experiment(experiment, overrides)
    check_recorded(described.backend, recorded)
    inventory = None if hosts is None else load_inventory(hosts)
    source = open_source(recorded, runs)
    plan = plan_on_record(described, source, inventory)
    targets = [Target(policy) for policy in plan.policies]
    profile = Path(described.profile) if described.profile else None
    return finish_replay(reevaluate(source, targets, profile, runs, command_line, plan), output)


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
    if name not in (None, HOSTS, SIMULATED, REPLAYED):
        raise BadInput(f"--backend: there is no {name!r}; available: {HOSTS}, {SIMULATED}, {REPLAYED}")


def check_recorded(backend: str, recorded: str | None) -> None:
    """Is a recorded run named where one is decided anew, and nowhere else?

    Args:
        backend: of the experiment, options applied.
        recorded: ``--from``.

    Raises:
        BadInput: it is not; the text says what to do.
    """
    if backend == REPLAYED and recorded is None:
        raise BadInput(
            "--backend replayed needs the recorded run that is decided anew: --from RUN, its folder or its "
            "experiment's name; `edgebed runs` lists those that there are, and inventory/traces/local-day is shipped"
        )
    if backend != REPLAYED and recorded is not None:
        raise BadInput(f"--from is for --backend {REPLAYED}; the backend is {backend!r}")
