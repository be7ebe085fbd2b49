"""Watch a run or a training while it goes on: cells, tasks, policies so far, events; it only reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebed.errors import EXIT_DONE, EXIT_FAILED
from orchestrator.cli.output import Output

if TYPE_CHECKING:
    from orchestrator.watching.run import RunWatch
    from orchestrator.watching.training import TrainingWatch
    from orchestrator.watching.view import View

EXAMPLES = (
    "edgebed watch runs/demo/latest",
    "edgebed watch demo --interval 5",
    "edgebed watch runs/demo/latest --json",
)

INTERVAL_S = 1.0
RUNS = Path("runs")


def command(
    run: Annotated[str, typer.Argument(help="Folder of a run or of a training, or name of an experiment.")],
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=3600.0, help="Time between looks.")
    ] = INTERVAL_S,
    runs: Annotated[Path, typer.Option("--runs", help="The folder of runs; ./runs by default.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print how it stands as one JSON object, and end.")] = False,
) -> int:
    """Watch a run or a training from another terminal, until it has ended or nobody works on it any more.

    It takes no lock and writes nothing. Ctrl-C ends the view; the run goes on. Ends with 0 when the run is complete,
    with 1 when it has ended otherwise or was left; with --json with 0 whatever the state.
    """
    watch = watch_of(run, runs)
    if as_json:
        Output(as_json).answer(watch.look().to_plain())
        return EXIT_DONE
    view = _follow(watch, interval)
    return EXIT_DONE if view.state == "complete" and not view.is_left else EXIT_FAILED


def watch_of(run: str, runs: Path) -> RunWatch | TrainingWatch:
    """What looks at a run or at a training.

    Raises:
        BadInput: there is neither.
    """
    from edgebed.learning.training_place import find_training

    for folder in (Path(run), runs / run):
        training = find_training(folder)
        if training is not None:
            from orchestrator.watching.training import TrainingWatch

            return TrainingWatch(training)
    from edgebed.trace.runs import find_run_folder
    from orchestrator.watching.run import RunWatch

    return RunWatch(find_run_folder(run, runs))


def _follow(watch: RunWatch | TrainingWatch, interval_s: float) -> View:
    """Show one look after the other; returns the last one."""
    from orchestrator.report.terminal import terminal
    from orchestrator.watching.display import display_for

    display = display_for(terminal())
    view: View | None = None
    try:
        while True:
            view = watch.look()
            display.show(view)
            if view.is_over:
                return view
            time.sleep(interval_s)
    finally:
        display.close(view)
