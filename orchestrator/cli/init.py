"""Make a starter inventory and experiment; never overwrites."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from edgebed.errors import BadInput, Problem
from orchestrator.cli.output import Output
from orchestrator.shipped import shipped_inventory

EXAMPLES = ("edgebed init my-project",)


def command(
    folder: Annotated[Path, typer.Argument(help="Where to make inventory/; the folder is made where it is missing.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a starter project in FOLDER/inventory/: hosts files and the demo experiment.

    Nothing is overwritten: if any of the files is there already, all are named and none is written.
    """
    source = shipped_inventory()
    # Boards stay with edgebed: a copy would not follow when their numbers are corrected.
    paths = [*sorted(source.glob("hosts/*.yaml")), *sorted(source.glob("experiments/*.yaml"))]
    files = [path.relative_to(source) for path in paths if path.name != "lab.yaml"]
    target = folder / "inventory"
    there = [path for path in files if (target / path).exists()]
    if there:
        raise BadInput(Problem("is there already and would be overwritten", file=str(target / path)) for path in there)
    for path in files:
        try:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, target / path)
        except OSError as error:
            raise BadInput(Problem(f"cannot be written: {error.strerror}", file=str(target / path))) from None
    output = Output(as_json)
    output.text(_next_steps(folder))
    output.answer({"folder": str(folder), "files": [str(Path("inventory") / path) for path in files]})


def _next_steps(folder: Path) -> str:
    return "\n".join(
        (
            f"Made {folder / 'inventory'}. Next:",
            f"  cd {folder}",
            "  edgebed plan inventory/experiments/demo.yaml      what it would run",
            "  edgebed run inventory/experiments/demo.yaml       on this machine, a few minutes",
            "For your own devices copy inventory/hosts/pi-cluster.example.yaml and write their names.",
            "A board that `edgebed list boards` does not show is described by a file of its own in inventory/boards/.",
        )
    )
