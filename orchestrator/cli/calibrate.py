"""Fit a profile of the testbed to runs: service times, links, delays, energy.

The profile is for `edgebed run --backend simulated --profile`, `edgebed validate`, and the scenario calibrated:PROFILE.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgebed.errors import BadInput
from edgebed.simulation.testbed.profile import write_profile
from orchestrator.calibration.calibrate import Calibration, calibrate
from orchestrator.calibration.text import calibration_lines
from orchestrator.calibration.traces import open_traces
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed calibrate runs/demo/latest -o profile.yaml",
    "edgebed calibrate monday tuesday -o profile.yaml --json",
)


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or names of experiments.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PROFILE", help="The profile's file, YAML.")],
    runs_dir: Annotated[Path, typer.Option("--runs", help="Where runs are looked for by name.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON: what was used.")] = False,
) -> None:
    """Fit a profile to runs: what hosts and links are like, with residuals and the rows that each was fitted to.

    Warm-up and tasks with a doubtful flag are left out. The runs need tasks of every device and server: a policy that
    computes locally, and one that offloads.
    """
    out = Output(as_json)
    if not output.parent.is_dir():
        raise BadInput(f"{output}: the profile cannot be written: {output.parent} is not a folder")
    found = calibrate(open_traces(runs, runs_dir))
    try:
        write_profile(found.profile, output)
    except OSError as error:
        raise BadInput(f"{output}: the profile cannot be written: {error.strerror}") from None
    for line in calibration_lines(found):
        out.text(line)
    out.text(f"\n{output}")
    out.answer({"profile": str(output), **_answer(found)})


def _answer(found: Calibration) -> dict[str, Any]:
    source = found.profile.source
    return {
        "workload": found.profile.workload,
        "runs": source.runs,
        "cells": source.cells,
        "tasks": source.tasks,
        "seeds": source.seeds,
        "policies": source.policies,
        "residuals": source.residuals,
        "notes": list(found.notes),
    }
