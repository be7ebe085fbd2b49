"""Look into runs: list them, show one, query one with SQL.

The tables of a run are tasks, epochs, samples and events; docs/trace.md explains their columns. A query only reads.
"""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from edgebed.errors import BadInput
from edgebed.trace.runs import Answer, Run, RunEntry, find_run, list_runs
from orchestrator.cli.output import Output
from orchestrator.report.terminal import print_summary, terminal

EXAMPLES = (
    "edgebed runs list",
    "edgebed runs show demo",
    'edgebed runs sql "SELECT policy, avg(latency_s) FROM tasks GROUP BY policy"',
    'edgebed runs sql "DESCRIBE tasks" --run runs/demo/latest',
)

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

RunsOption = Annotated[Path | None, typer.Option("--runs", help="The folder of runs; ./runs by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End with one line of JSON.")]

RUNS = Path("runs")
COUNTS = ("planned", "done", "failed", "unknown")


@app.callback(invoke_without_command=True)
def runs(context: typer.Context, runs_dir: RunsOption = None, as_json: JsonOption = False) -> None:
    """Look into runs: list them, show one, query one with SQL. Without more, list them."""
    context.obj = (runs_dir, as_json)
    if context.invoked_subcommand is None:
        list_(context)


def _options(context: typer.Context, runs_dir: Path | None, as_json: bool) -> tuple[Path, Output]:
    """Options count wherever they stand, before the sub-verb or behind it."""
    runs_dir_before, as_json_before = context.obj
    return runs_dir or runs_dir_before or RUNS, Output(as_json or as_json_before)


@app.command("list")
def list_(context: typer.Context, runs_dir: RunsOption = None, as_json: JsonOption = False) -> None:
    """List the runs, the oldest first."""
    runs_dir, out = _options(context, runs_dir, as_json)
    entries = list_runs(runs_dir)
    rows = [_entry(entry) for entry in entries]
    if not rows:
        out.note(f"there are no runs in {runs_dir}")
    else:
        headings = ("run", "state", "verdict", *COUNTS)
        _print_table(out, Answer(headings, [_cells(row) for row in rows]))
    for entry in entries:
        if entry.problem:
            out.note(entry.problem)
    out.answer({"runs": rows})


@app.command()
def show(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or name of an experiment.")],
    runs_dir: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run found, or how far it has come."""
    runs_dir, out = _options(context, runs_dir, as_json)
    found = find_run(run, runs_dir)
    if found.is_sealed:
        summary = print_summary(found, terminal(to_standard_error=out.as_json))
        out.answer({"run": str(found.path), **summary.to_plain()})
        return
    manifest = found.manifest
    out.text(f"{manifest.experiment} {found.path}: {manifest.state}; it has no tables yet")
    out.answer({"run": str(found.path), **_entry(RunEntry(found.path, manifest))})


@app.command()
def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="Q", help="One SELECT over tasks, epochs, samples and events.")],
    run: Annotated[str | None, typer.Option("--run", help="Folder or name; the newest run by default.")] = None,
    runs_dir: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run SQL over the tables of a run; nothing is changed."""
    runs_dir, out = _options(context, runs_dir, as_json)
    found = find_run(run, runs_dir) if run else newest(runs_dir)
    out.note(f"run: {found.path}")
    answer = found.query(query)
    _print_table(out, answer)
    out.answer({"columns": list(answer.columns), "rows": [[plain(value) for value in row] for row in answer.rows]})


def newest(runs_dir: Path) -> Run:
    """The newest run that can be read.

    Raises:
        BadInput: there is none.
    """
    readable = [entry for entry in list_runs(runs_dir) if entry.manifest is not None]
    if not readable:
        raise BadInput(f"there are no runs in {runs_dir}; --runs names another folder, --run a run")
    return Run(readable[-1].path)


def _entry(entry: RunEntry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "run": str(entry.path),
        "experiment": entry.path.parent.name,
        "state": manifest.state if manifest else "unreadable",
        "verdict": manifest.verdict if manifest else None,
        "counts": manifest.counts if manifest else {},
    }


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["run"], row["state"], row["verdict"], *(row["counts"].get(name) for name in COUNTS))


def _print_table(out: Output, answer: Answer) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(answer.columns):
        is_number = any(isinstance(row[index], int | float) for row in answer.rows)
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in answer.rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    terminal(to_standard_error=out.as_json).print(table)


def plain(value: Any) -> Any:
    """A value of a query as JSON knows it; NULL, NaN and infinity are null, what JSON does not know is text."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, bool | int | str) else str(value)
