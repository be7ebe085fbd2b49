"""Write a run for other tools: its tables as CSV, or its decisions as Minari datasets.

docs/data.md explains both.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgebed.trace.runs import find_run
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed export runs/demo/latest --to csv -o demo-csv",
    "edgebed export demo --to minari -o datasets",
)


class Target(StrEnum):
    """What a run is written as."""

    CSV = "csv"
    MINARI = "minari"


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or the name of its experiment.")],
    to: Annotated[Target, typer.Option("--to", help="csv: the four tables; minari: datasets to learn from.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")],
    runs_dir: Annotated[Path, typer.Option("--runs", help="Where runs are looked for by name.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Write a run for other tools: its tables as CSV, or its decisions as Minari datasets."""
    found = find_run(run, runs_dir)
    out = Output(as_json)
    answer: dict[str, Any] = {"run": str(found.path), "to": to.value, "folder": str(output)}
    if to is Target.CSV:
        from orchestrator.export.csv_files import write_csv

        answer["rows"] = write_csv(found, output)
        for table, rows in answer["rows"].items():
            out.text(f"{output / table}.csv  {rows} rows")
    else:
        from orchestrator.export.minari_files import write_minari

        answer["datasets"] = write_minari(found, output)
        for one in answer["datasets"]:
            out.text(f"{one['id']}  {one['episodes']} episodes, {one['steps']} steps")
        out.text(f"\nMINARI_DATASETS_PATH={output} lets minari.load_dataset find them")
    out.answer(answer)
