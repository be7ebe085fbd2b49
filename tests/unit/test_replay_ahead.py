"""Things are made while others are worked on: all of them, in order, and what goes wrong is told in its turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator.replay.ahead import Behind, one_ahead, side_by_side

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


def test_side_by_side_two_are_made_at_once_and_come_in_their_order() -> None:
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def make(number: int) -> int:
        both.wait()  # passes only when two are being made
        return number * number

    assert list(side_by_side(make, range(6), threads=2)) == [0, 1, 4, 9, 16, 25]
    assert list(side_by_side(make, [], threads=2)) == []


def test_side_by_side_an_error_comes_in_its_turn_and_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    coming = side_by_side(lambda number: 1 // (number - 2), range(9))
    assert [next(coming), next(coming)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(coming)
    assert threading.active_count() == before


def test_what_is_behind_is_done_in_order_while_the_next_is_made() -> None:
    done, may_go = [], threading.Event()

    def first() -> None:
        assert may_go.wait(DEADLINE_S)
        done.append("first")

    with Behind() as behind:
        behind.do(first)  # does not wait for it
        may_go.set()
        behind.do(lambda: done.append("second"))
    assert done == ["first", "second"]


@pytest.mark.parametrize("later", [True, False])
def test_an_error_behind_is_told_at_the_next_or_at_the_end(later: bool) -> None:
    def fail() -> None:
        raise ValueError("not done")

    before = threading.active_count()
    with pytest.raises(ValueError, match="not done"), Behind() as behind:  # noqa: PT012
        behind.do(fail)
        if later:
            behind.do(lambda: None)
    assert threading.active_count() == before


def test_left_by_an_error_it_is_that_error_which_counts() -> None:
    def fail() -> None:
        raise ValueError("not done")

    with pytest.raises(KeyError), Behind() as behind:  # noqa: PT012
        behind.do(fail)
        raise KeyError
