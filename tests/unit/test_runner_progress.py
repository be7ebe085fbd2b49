"""How a run goes, in numbers and in words."""

from __future__ import annotations

import io

import pytest

from edgebed.clock import ManualClock
from orchestrator.progress import LiveDisplay, PlainDisplay, Standing, Tracker, display_for, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (185, "3:05 min"), (7800, "2:10 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def tracker(clock: ManualClock) -> Tracker:
    cells = ["a", "b", "c"]
    return Tracker(clock, dict.fromkeys(cells, 10.0), dict.fromkeys(cells, 20), members=4)


def test_a_run_from_its_begin_to_its_end() -> None:
    clock = ManualClock()
    progress = tracker(clock)
    begin = progress.standing("starting", 0, 0)
    assert (begin.cells_done, begin.cells, begin.tasks_done, begin.tasks, begin.remaining_s) == (0, 3, 0, 60, None)
    progress.begin("a")
    clock.advance(4.0)
    middle = progress.standing("running", 8, 4)
    assert (middle.tasks_done, middle.rate) == (8, 2.0)
    assert middle.remaining_s == 3 * (10.0 + 2.0) - 4.0, "2 s a cell are reckoned with until one was measured"
    clock.advance(7.0)
    progress.end()
    progress.begin("b")
    after = progress.standing("preparing", 0, 4)
    assert (after.cells_done, after.tasks_done) == (1, 20)
    assert after.remaining_s == pytest.approx(2 * 11.0), "1 s beyond the horizon was measured"


def test_cells_of_an_earlier_session_do_not_count_for_the_rate() -> None:
    clock = ManualClock()
    progress = tracker(clock)
    progress.skip("a")
    progress.begin("b")
    clock.advance(5.0)
    standing = progress.standing("running", 10, 4)
    assert (standing.cells_done, standing.tasks_done, standing.rate) == (1, 30, 2.0)


STANDING = Standing("b: running", 1, 3, 30, 60, 2.0, 185.0, 4, 4)


def test_a_standing_in_words() -> None:
    assert STANDING.line() == "cell 1/3 | b: running | 30/60 tasks | 2.0/s | 4/4 up | 3:05 min left"


def test_plain_lines_come_with_news_and_every_few_seconds() -> None:
    clock, stream = ManualClock(), io.StringIO()
    display = PlainDisplay(clock, stream)
    display.show(STANDING)
    display.show(STANDING)
    assert stream.getvalue().count("\n") == 1
    clock.advance(5.0)
    display.show(STANDING)
    display.show(Standing("c: preparing", 2, 3, 40, 60, 2.0, 100.0, 4, 4))
    display.note("something")
    display.close()
    assert stream.getvalue().splitlines()[2:] == [
        "cell 2/3 | c: preparing | 40/60 tasks | 2.0/s | 4/4 up | 1:40 min left",
        "something",
    ]


def test_a_live_line_leaves_the_terminal_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock()
    display = LiveDisplay(clock)
    display.show(STANDING)
    display.note("[not markup]")
    display.close()
    display.close()
    printed = capsys.readouterr()
    assert "[not markup]" in printed.err
    assert printed.out == ""


def test_what_is_no_terminal_gets_plain_lines() -> None:
    assert isinstance(display_for(ManualClock(), lambda: False), PlainDisplay)
    assert isinstance(display_for(ManualClock(), lambda: True), LiveDisplay)
