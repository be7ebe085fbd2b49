"""Make a run folder of a foreign trace: a CSV file, and a mapping of its columns.

The run says that it is imported, and so does each of its rows; docs/data.md explains the mapping.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgebed.trace.runs import find_run
from orchestrator.cli.output import Output

EXAMPLES = ("edgebed import measured.csv --map measured.yaml", "edgebed report measured")


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file with a header, a row a task.")],
    mapping: Annotated[Path, typer.Option("--map", metavar="MAP", help="A YAML file: our columns from theirs.")],
    runs_dir: Annotated[Path, typer.Option("--runs", help="The folder of runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Make a run folder of a foreign trace: a CSV file, and a mapping of its columns."""
    from orchestrator.importing.mapping_file import load_mapping, not_mapped
    from orchestrator.importing.run import import_run
    from orchestrator.importing.source import read_source

    read = load_mapping(mapping)
    tasks = read_source(file, read)
    line = f"edgebed import {shlex.quote(str(file))} --map {shlex.quote(str(mapping))}"
    folder = import_run(tasks, read, file, runs_dir, line)
    manifest = find_run(folder).manifest
    out = Output(as_json)
    out.text(f"{folder}: {len(tasks)} tasks, {manifest.verdict}")
    for reason in manifest.reasons:
        out.text(f"  {reason}")
    missing = not_mapped(read)
    if missing:
        out.note(
            f"not mapped: {', '.join(missing)}. Without decisions and stages it can be reported and exported, but "
            "`edgebed replay` only gives it back as it is, and `edgebed calibrate`, which needs cycles too, has "
            "nothing to fit"
        )
    out.answer(
        {
            "run": str(folder),
            "state": manifest.state,
            "verdict": manifest.verdict,
            "reasons": manifest.reasons,
            "not_mapped": missing,
            **{name: manifest.counts[name] for name in ("planned", "done", "failed", "unknown")},
        }
    )
