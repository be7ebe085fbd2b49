"""A view as text: a table that changes in place on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Protocol

from orchestrator.progress import duration
from orchestrator.report import text
from orchestrator.watching.view import PolicyStanding, View

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

_HEADINGS = ("cells", "done", "failed", "unknown", "median", "p95", "missed")
_COLOURS = {"complete": "green", "failed": "red", "invalid": "red", "suspect": "yellow", "valid": "green"}


class Display(Protocol):
    """Shows how a run stands."""

    def show(self, view: View) -> None:
        """Show how it stands now."""
        ...

    def close(self, view: View | None) -> None:
        """Leave the last view on the screen; None when there was none."""
        ...


class LiveDisplay:
    """A picture that is drawn again in place.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live: Live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
        self._live.start()

    def show(self, view: View) -> None:
        """Draw it."""
        self._live.update(picture(view), refresh=True)

    def close(self, view: View | None) -> None:
        """Leave the last picture there."""
        self._live.stop()


class PlainDisplay:
    """Lines for files and pipes: one whenever something has changed, and the table at the end."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._shown: tuple[object, ...] = ()
        self._told: set[str] = set()

    def show(self, view: View) -> None:
        """Print what has changed."""
        standing = view.standing
        key = (view.state, standing.doing, standing.cells_done, standing.tasks_done, standing.up, view.measures)
        if key != self._shown:
            self._shown = key
            self._print(line_of(view))
        for problem in view.problems:
            if problem not in self._told:
                self._told.add(problem)
                self._print(f"problem: {problem}")

    def close(self, view: View | None) -> None:
        """Print the table of policies."""
        if view is not None:
            for line in table_lines(view):
                self._print(line)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def line_of(view: View) -> str:
    """A view as one line of text."""
    if view.kind == "run":
        return view.standing.line()
    standing = view.standing
    parts = [standing.doing, f"{standing.tasks_done}/{standing.tasks} steps"]
    if standing.rate > 0:
        parts.append(f"{standing.rate:.0f}/s")
    parts += [f"{name} {value:.4g}" for name, value in view.measures]
    if standing.remaining_s is not None:
        parts.append(f"{duration(standing.remaining_s)} left")
    return " | ".join(parts)


def cells_of(policy: PolicyStanding) -> Iterator[str]:
    """What the table says of a policy, behind its name."""
    yield f"{policy.cells_done}/{policy.cells}"
    yield from (str(count) for count in (policy.done, policy.failed, policy.unknown))
    yield text.milliseconds(policy.p50_s)
    yield text.milliseconds(policy.p95_s)
    yield text.percent(policy.miss_rate)


def table_lines(view: View) -> list[str]:
    """The table of policies, verdict and notes as lines of text."""
    rows = [("policy", *_HEADINGS), *((policy.name, *cells_of(policy)) for policy in view.policies)]
    lines = []
    if view.policies:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zipped))
            for zipped in (list(zip(row, widths, strict=True)) for row in rows)
        ]
    if view.verdict is not None:
        lines.append(f"verdict {view.verdict}" + "".join(f"\n  {reason}" for reason in view.reasons))
    return [*lines, *view.notes]


def picture(view: View) -> Group:
    """A view as a picture for a terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    standing = view.standing
    parts: list[Text | Table | ProgressBar] = [
        Text.assemble((f"{view.path.parent.name}/{view.path.name}", "bold"), "  ", _state_text(view)),
        Text(line_of(view)),
        ProgressBar(total=max(1, standing.tasks), completed=standing.tasks_done, width=60),
    ]
    if view.policies:
        parts.append(_table(view))
    parts += [Text(f"  {line}", style="yellow") for line in (*view.reasons, *view.problems)]
    parts += [Text(event.line(), style="dim", no_wrap=True, overflow="ellipsis") for event in view.events]
    parts += [Text(note, style="cyan") for note in view.notes]
    return Group(*parts)


def _state_text(view: View) -> Text:
    from rich.text import Text

    state = Text(view.state, style=_COLOURS.get(view.state, ""))
    if view.verdict is not None:
        state.append(f", {view.verdict}", style=_COLOURS.get(view.verdict, ""))
    return state


def _table(view: View) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("policy", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for policy in view.policies:
        table.add_row(*(Text(cell) for cell in (policy.name, *cells_of(policy))))
    return table


def display_for(console: Console) -> Display:
    """What suits standard output."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay()
