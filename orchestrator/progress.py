"""How a run goes, while it goes: cells, tasks, rate, remaining time, who is up. Always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Protocol

from edgebed.clock import Clock

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 5.0
LIVE_INTERVAL_S = 0.2

CELL_OVERHEAD_S = 2.0
"""What a cell takes beyond its horizon, as long as none has been measured."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands.

    Attributes:
        doing: what is going on.
        tasks_done: tasks with an outcome, of all cells. tasks: planned ones, of all cells.
        rate: tasks with an outcome a second, in this session.
        remaining_s: about how long it will still take; None while that cannot be said.
        up: programs that can be spoken with. members: programs that there are;
            0 where everything is computed here.
    """

    doing: str
    cells_done: int
    cells: int
    tasks_done: int
    tasks: int
    rate: float
    remaining_s: float | None
    up: int
    members: int

    def line(self) -> str:
        """As one line of text."""
        parts = [
            f"cell {self.cells_done}/{self.cells}",
            self.doing,
            f"{self.tasks_done}/{self.tasks} tasks",
            f"{self.rate:.1f}/s",
            *([f"{self.up}/{self.members} up"] if self.members else []),
        ]
        if self.remaining_s is not None:
            parts.append(f"{duration(self.remaining_s)} left")
        return " | ".join(parts)


def duration(seconds: float) -> str:
    """A length of time as people read it: ``42 s``, ``3:05 min``, ``2:10 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


@dataclass(slots=True)
class Tracker:
    """Reckons how a run stands from what is told of its cells.

    Args:
        clock: times cells.
        horizons_s: of every cell, by its name.
        planned: tasks of every cell, by its name.
        members: programs that there are.
    """

    clock: Clock
    horizons_s: dict[str, float]
    planned: dict[str, int]
    members: int
    _done: set[str] = field(default_factory=set)
    _done_before: set[str] = field(default_factory=set)
    _current: str = ""
    _began_s: float = 0.0
    _first_began_s: float | None = None
    _overheads_s: list[float] = field(default_factory=list)

    def skip(self, cell_id: str) -> None:
        """The cell was complete before this session."""
        self._done.add(cell_id)
        self._done_before.add(cell_id)

    def begin(self, cell_id: str) -> None:
        """The cell is worked on from now."""
        self._current, self._began_s = cell_id, self.clock.now_s()
        if self._first_began_s is None:
            self._first_began_s = self._began_s

    def end(self) -> None:
        """The current cell is complete."""
        self._done.add(self._current)
        self._overheads_s.append(self.clock.now_s() - self._began_s - self.horizons_s[self._current])
        self._current = ""

    def standing(self, doing: str, terminal: int, up: int) -> Standing:
        """How the run stands.

        Args:
            doing: what is going on.
            terminal: tasks of the current cell that have an outcome.
            up: programs that can be spoken with.
        """
        here = terminal if self._current else 0
        done = sum(self.planned[cell_id] for cell_id in self._done)
        before = sum(self.planned[cell_id] for cell_id in self._done_before)
        elapsed_s = self.clock.now_s() - self._first_began_s if self._first_began_s is not None else 0.0
        return Standing(
            doing=f"{self._current}: {doing}" if self._current else doing,
            cells_done=len(self._done),
            cells=len(self.planned),
            tasks_done=done + here,
            tasks=sum(self.planned.values()),
            rate=(done + here - before) / elapsed_s if elapsed_s > 0 else 0.0,
            remaining_s=self._remaining_s(),
            up=up,
            members=self.members,
        )

    def _remaining_s(self) -> float | None:
        if self._first_began_s is None:
            return None
        known = self._overheads_s
        overhead_s = max(0.0, sum(known) / len(known)) if known else CELL_OVERHEAD_S
        left = {name: each + overhead_s for name, each in self.horizons_s.items() if name not in self._done}
        if self._current in left:
            left[self._current] = max(0.0, left[self._current] - (self.clock.now_s() - self._began_s))
        return sum(left.values())


class Display(Protocol):
    """Shows how a run stands."""

    def show(self, standing: Standing) -> None:
        """Show it; may be called as often as one likes."""
        ...

    def note(self, text: str) -> None:
        """Say something that stays."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class PlainDisplay:
    """Lines of text, for files and pipes: one every few seconds, and one when something else is being done."""

    def __init__(self, clock: Clock, stream: IO[str] | None = None) -> None:
        self._clock = clock
        self._stream = stream or sys.stderr
        self._due_s = clock.now_s()
        self._doing = ""

    def show(self, standing: Standing) -> None:
        """Print a line, when it is time for one."""
        now_s = self._clock.now_s()
        if standing.doing == self._doing and now_s < self._due_s:
            return
        self._doing, self._due_s = standing.doing, now_s + PLAIN_INTERVAL_S
        self.note(standing.line())

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to be done."""


class LiveDisplay:
    """One line that changes in place, with a bar, for terminals."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s = clock.now_s()
        self._bar: tuple[RichBar, TaskID] | None = None

    def show(self, standing: Standing) -> None:
        """Change the line, a few times a second at most."""
        if self._clock.now_s() < self._due_s:
            return
        self._due_s = self._clock.now_s() + LIVE_INTERVAL_S
        bar, task = self._opened()
        line = standing.line()
        bar.update(task, total=max(1, standing.tasks), completed=standing.tasks_done, description=line, refresh=True)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        bar, _ = self._opened()
        bar.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _opened(self) -> tuple[RichBar, TaskID]:
        if self._bar is None:
            # Imported here: it takes a while, and by now the hosts are busy starting their programs.
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichBar

            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            bar = RichBar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
            bar.start()
            self._bar = bar, bar.add_task("", total=None)
        return self._bar


def display_for(clock: Clock, is_terminal: Callable[[], bool] | None = None) -> Display:
    """What suits standard error."""
    return LiveDisplay(clock) if (is_terminal or sys.stderr.isatty)() else PlainDisplay(clock)
