"""Write one self-contained HTML report of runs.

The report is made of the files of the runs alone, and can be made again at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebed.trace.runs import find_run
from orchestrator.cli.output import Output
from orchestrator.report.html import REPORT_FILE, write_report
from orchestrator.report.terminal import print_summary, terminal

EXAMPLES = ("edgebed report runs/demo/latest", "edgebed report demo calibration -o both.html")


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or names of experiments.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; by default report.html, in the folder of a single run."),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs", help="Where runs are looked for by name.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON: file and summary.")] = False,
) -> None:
    """Write one self-contained HTML report of runs, and print its summary."""
    out = Output(as_json)
    found = [find_run(run, runs_dir) for run in runs]
    file = output or (found[0].path / REPORT_FILE if len(found) == 1 else Path(REPORT_FILE))
    summaries = write_report([run.path for run in found], file)
    for summary in summaries:
        print_summary(summary, terminal(to_standard_error=as_json))
    out.text(f"\n{file}")
    out.answer({"report": str(file), "runs": [summary.to_plain() for summary in summaries]})
