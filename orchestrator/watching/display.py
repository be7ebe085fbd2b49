"""A view as text: a table that changes in place on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Protocol

from orchestrator.progress import Standing, duration
from orchestrator.report import text
from orchestrator.watching.view import PolicyStanding, View

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

_BAR_WIDTH = 60
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

        self._console = console
        # More lines than the terminal has could not be drawn over again; the last picture is shown whole.
        self._live: Live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")
        self._live.start()

    def show(self, view: View) -> None:
        """Draw it."""
        self._live.update(picture(view, self._console.width), refresh=True)

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
        """Print the table of policies, the verdict, and what there is to know."""
        if view is None:
            return
        verdict = [] if view.verdict is None else [f"verdict {view.verdict}"]
        for line in (*table_lines(view), *verdict, *(f"  {reason}" for reason in view.reasons), *view.notes):
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


def numbers_of(policy: PolicyStanding) -> Iterator[str]:
    """What the table says of a policy, behind its name."""
    yield f"{policy.cells_done}/{policy.cells}"
    yield from (str(count) for count in (policy.done, policy.failed, policy.unknown))
    yield text.milliseconds(policy.p50_s)
    yield text.milliseconds(policy.p95_s)
    yield text.percent(policy.miss_rate)


def table_lines(view: View) -> list[str]:
    """The table of policies as lines of text, its headings first; empty without policies."""
    rows = [("policy", *_HEADINGS), *((policy.name, *numbers_of(policy)) for policy in view.policies)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zipped))
        for zipped in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return lines if view.policies else []


def listed_policies(view: View) -> list[str]:
    """The same with a line a policy that says what each number is, for terminals that the table is too wide for."""
    told = [(policy.name, zip(_HEADINGS, numbers_of(policy), strict=True)) for policy in view.policies]
    return [f"{name}: " + ", ".join(f"{heading} {number}" for heading, number in numbers) for name, numbers in told]


def picture(view: View, width: int) -> Group:
    """A view as a picture for a terminal.

    Args:
        view: what to show.
        width: the terminal's, in columns.
    """
    from rich.console import Group
    from rich.text import Text

    table = table_lines(view)
    is_wide_enough = all(len(line) <= width for line in table)
    parts = [
        Text.assemble((f"{view.path.parent.name}/{view.path.name}", "bold"), "  ", _state_text(view)),
        Text(line_of(view)),
        _bar(view.standing, min(width, _BAR_WIDTH)),
        *(Text(line, style="" if number else "dim") for number, line in enumerate(table) if is_wide_enough),
        *(Text(line) for line in listed_policies(view) if not is_wide_enough),
        *(Text(f"  {line}", style="yellow") for line in (*view.reasons, *view.problems)),
        *(Text(event.line(), style="dim", no_wrap=True, overflow="ellipsis") for event in view.events),
        *(Text(note, style="cyan") for note in view.notes),
    ]
    return Group(*parts)


def _bar(standing: Standing, width: int) -> Text:
    """How many of the tasks are over, as a line."""
    from rich.text import Text

    done = round(width * min(1.0, standing.tasks_done / max(1, standing.tasks)))
    return Text.assemble(("━" * done, "green"), ("━" * (width - done), "bright_black"))


def _state_text(view: View) -> Text:
    from rich.text import Text

    state = Text(view.state, style=_COLOURS.get(view.state, ""))
    if view.verdict is not None:
        state.append(f", {view.verdict}", style=_COLOURS.get(view.verdict, ""))
    return state


def display_for(console: Console) -> Display:
    """What suits standard output."""
    can_draw_again = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if can_draw_again else PlainDisplay()
