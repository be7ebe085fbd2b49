"""Things are made while others are worked on: all of them, in order, and what goes wrong is told in its turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator.replay.ahead import one_ahead

DEADLINE_S = 30.0


def test_all_come_in_their_order_whatever_they_are() -> None:
    assert list(one_ahead(iter([0, "", None, 3]))) == [0, "", None, 3]
    assert list(one_ahead(iter(()))) == []


def test_the_next_is_made_while_one_is_worked_on() -> None:
    is_made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        is_made.set()
        yield 2

    coming = one_ahead(items())
    assert next(coming) == 1
    assert is_made.wait(DEADLINE_S)
    assert list(coming) == [2]


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("nothing more")

    coming = one_ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="nothing more"):
        next(coming)


def test_who_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    coming = one_ahead(iter(range(10)))
    assert next(coming) == 0
    coming.close()
    assert threading.active_count() == before
