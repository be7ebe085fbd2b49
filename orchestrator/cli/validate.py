"""Compare a profile with runs: errors with intervals, distributions, the ranking of policies.

The plans of the runs are simulated with the profile, and compared with what was measured. Whatever the errors are, the
exit status is 0: judging them is for the reader.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edgebed.errors import BadInput
from edgebed.simulation.testbed.profile import read_profile
from orchestrator.calibration.page import write_page
from orchestrator.calibration.simulating import check_faults, simulate
from orchestrator.calibration.text import validation_lines
from orchestrator.calibration.traces import open_traces
from orchestrator.calibration.validate import REPLICAS, check_profile_fits, validate
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed validate profile.yaml runs/demo/latest",
    "edgebed validate profile.yaml wednesday thursday -o validation.html --json",
)


def command(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="A file that `edgebed calibrate` wrote.")],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or names of experiments.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page, HTML; by default beside the profile.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, max=1000, help="How often each plan is simulated.")] = REPLICAS,
    runs_dir: Annotated[Path, typer.Option("--runs", help="Where runs are looked for by name.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON: errors, ranking_kept.")] = False,
) -> None:
    """Simulate the plans of runs with a profile, and tell how far that is from what was measured.

    Best with runs that the profile was not fitted to: other seeds, other policies. Give two runs of one experiment, and
    the difference between them stands beside the errors: no simulator can be held to more.
    """
    out = Output(as_json)
    page = output or profile.with_name(f"{profile.stem}-validation.html")
    if not page.parent.is_dir():
        raise BadInput(f"{page}: the page cannot be written: {page.parent} is not a folder")
    known = read_profile(profile)
    traces = open_traces(runs, runs_dir)
    check_profile_fits(known, str(profile), traces)
    for trace in traces:
        check_faults(trace)
    found = validate(known, traces, partial(simulate, known), replicas)
    for line in validation_lines(found):
        out.text(line)
    write_page(found, known, profile.name, page)
    out.text(f"\n{page}")
    out.answer({"profile": str(profile), "page": str(page), **found.to_plain()})
