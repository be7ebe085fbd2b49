"""The HTML report: one file without links to others, made of a run's files alone, the same for the same run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput, MissingExtra
from edgebed.replacing import replace_file
from edgebed.trace.runs import Run
from orchestrator.report import figures, text
from orchestrator.report.series import EVENTS_SHOWN
from orchestrator.report.summary import Summary, sources_label, summarise

REPORT_FILE = "report.html"
MOST_OPEN_ROWS = 15
"""Longer tables are folded."""
HOSTS_SHOWN = 200
"""Facts of more hosts would make the page too long to open."""

_PICTURES = {
    "latency": figures.latency_picture,
    "stages": figures.stages_picture,
    "misses": figures.misses_picture,
    "energy": figures.energy_picture,
    "decisions": figures.decisions_picture,
    "hosts": figures.hosts_picture,
}


def write_report(run_folders: Sequence[Path], out: Path) -> list[Summary]:
    """Write the report of one or several runs, and give back what it says.

    Args:
        run_folders: of sealed runs.
        out: the file; replaced when it exists.

    Raises:
        BadInput: a folder is not that of a sealed run, or ``out`` cannot be written.
        MissingExtra: matplotlib, Jinja or DuckDB is not installed.
    """
    if not out.parent.is_dir():
        raise BadInput(f"{out}: the report cannot be written: {out.parent} is not a folder")
    summaries = [summarise(Run(folder)) for folder in run_folders]
    page = render(summaries)
    try:
        replace_file(out, page.encode())
    except OSError as error:
        raise BadInput(f"{out}: the report cannot be written: {error.strerror}") from None
    return summaries


def render(summaries: Sequence[Summary]) -> str:
    """The page for these runs."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError:
        raise MissingExtra("orchestrator", "writing a report") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {
        "text": text,
        "relation_words": text.RELATION_WORDS,
        "flatten": flatten,
        "sources_label": sources_label,
        "most_open_rows": MOST_OPEN_ROWS,
        "most_panels": figures.MOST_PANELS,
        "events_shown": EVENTS_SHOWN,
        "hosts_shown": HOSTS_SHOWN,
    }
    template = environment.from_string((resources.files(__package__) / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(runs=[{"summary": summary, "pictures": _pictures(summary)} for summary in summaries])


def _pictures(summary: Summary) -> dict[str, dict[str, str] | None]:
    """Each picture as a data address and its words; None where there is nothing to show."""
    return {name: _embedded(draw(summary)) for name, draw in _PICTURES.items()}


def _embedded(picture: figures.Picture | None) -> dict[str, str] | None:
    if picture is None:
        return None
    return {"src": f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}", "alt": picture.alt}


def flatten(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as dotted keys and texts, in their order."""
    found: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            found.append((name, ", ".join(map(str, value))))
        else:
            found.append((name, str(value)))
    return found
