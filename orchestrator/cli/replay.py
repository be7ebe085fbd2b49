"""Replay a run: its decisions or its arrivals on hosts again, or another policy on its day without hosts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebed.clock import MonotonicClock
from edgebed.errors import BadInput
from orchestrator.cli.output import Output
from orchestrator.shipped import LOCAL_HOSTS

if TYPE_CHECKING:
    from orchestrator.plan_file import Plan
    from orchestrator.replay.planning import Target
    from orchestrator.replay.source import Source
    from orchestrator.runner import RunOutcome

EXAMPLES = (
    "edgebed replay runs/demo/latest --mode reevaluate --policy greedy_latency",
    "edgebed replay demo --mode open-loop --policy queue_threshold --hosts inventory/hosts/local.yaml",
    "edgebed replay demo --mode rerun --cells all_edge-s1 --json",
)

MODES = ("rerun", "open-loop", "reevaluate")


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or the name of an experiment.")],
    mode: Annotated[str, typer.Option("--mode", metavar="MODE", help="rerun, open-loop or reevaluate.")],
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME|FOLDER", help="Who decides anew; more than one may be named."),
    ] = None,
    hosts: Annotated[
        Path, typer.Option(help="The hosts' YAML file, of the hosts of the run: for rerun and open-loop.")
    ] = LOCAL_HOSTS,
    backend: Annotated[
        str, typer.Option(help="For rerun and open-loop: hosts, or simulated to connect to nothing.")
    ] = "hosts",
    profile: Annotated[
        Path | None,
        typer.Option(help="A profile from `edgebed calibrate`, for what nobody recorded; by default fitted to it."),
    ] = None,
    cells: Annotated[
        list[str] | None, typer.Option("--cells", metavar="CELL", help="Only these cells of the run.")
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Where runs are looked for by name, and the replay gets its folder.")
    ] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Replay a recorded run.

    rerun sends the recorded decisions to hosts again. open-loop repeats the recorded arrivals while a policy decides
    anew. reevaluate judges another policy on the recorded day without hosts: recorded arrivals, bytes, service times
    and links are used again, queues are recomputed, and every row says whether it is recorded, recomputed or modelled.

    The replay gets a run folder of its own, runs/<experiment>-replay/<time>; the source is not touched.
    """
    if mode not in MODES:
        raise BadInput(f"--mode: there is no {mode!r}; available: {', '.join(MODES)}")
    from orchestrator.replay.planning import RECORDED, target_of
    from orchestrator.replay.source import open_source

    if mode != "rerun" and not policies:
        raise BadInput(f"--mode {mode} needs --policy: a policy's name, or the folder of a learned one")
    source = open_source(run, runs, cells or ())
    targets = [target_of(each, source.trace.plan) for each in policies or [RECORDED]]
    if len(targets) > 1 and any(target.policy is None for target in targets):
        raise BadInput(f"--policy {RECORDED} stands for every policy of the run; name it alone")
    output = Output(as_json)
    words = ["edgebed", "replay", run, "--mode", mode]
    words += [word for each in policies or () for word in ("--policy", each)]
    words += [word for each in cells or () for word in ("--cells", each)]
    if mode == "reevaluate":
        words += [] if profile is None else ["--profile", str(profile)]
        return finish_replay(reevaluate(source, targets, profile, runs, shlex.join(words)), output)
    words += ["--hosts", str(hosts), "--backend", backend]
    return finish_replay(_on_hosts(mode, source, targets, hosts, backend, profile, runs, shlex.join(words)), output)


def reevaluate(
    source: Source,
    targets: list[Target],
    profile: Path | None,
    runs: Path,
    command_line: str,
    plan: Plan | None = None,
) -> RunOutcome:
    """Judge policies on the recorded days of a run; see `orchestrator.replay.reevaluate.Reevaluation`."""
    from edgebed.simulation.testbed.profile import read_profile
    from orchestrator.progress import display_for
    from orchestrator.replay.reevaluate import Reevaluation

    given = None if profile is None else read_profile(profile)
    display = display_for(MonotonicClock())
    return Reevaluation(source, targets, given, runs, display, command_line, plan).run()


def _on_hosts(
    mode: str,
    source: Source,
    targets: list[Target],
    hosts: Path,
    backend: str,
    profile: Path | None,
    runs: Path,
    command_line: str,
) -> RunOutcome:
    from orchestrator.replay.hosts_modes import Again, replay_on_hosts

    return replay_on_hosts(Again(mode, source, tuple(targets), hosts, backend, profile, runs, command_line))


def finish_replay(outcome: RunOutcome, output: Output) -> int:
    """Tell how a replay ended; returns the exit status."""
    from orchestrator.cli.finish import print_outcome
    from orchestrator.replay.text import replay_lines

    print_outcome(outcome, output)
    if outcome.manifest.backend != "replayed":  # else the summary has said it
        for line in replay_lines(outcome.manifest.replay):
            output.text(line)
    output.answer(answer_of(outcome))
    return outcome.exit_status


def answer_of(outcome: RunOutcome) -> dict[str, Any]:
    """What ``--json`` prints: as `edgebed run`, and what the replay is."""
    return outcome.answer() | outcome.manifest.replay
