"""Work on one thing while the next ones are being made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
A = TypeVar("A")

THREADS = 2
"""That make things: what is made is the same with any number, memory grows with it."""


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, each made in a thread while the one before it is worked on.

    It is worth that where making one is left to code that lets go of the interpreter: a database, a file.

    Raises:
        Exception: what making one raises, when its turn comes.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(_next, items)
        while found := coming.result():
            coming = thread.submit(_next, items)
            yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    return next(((item,) for item in items), None)


class Behind:
    """Does things in a thread of its own, one after another, while those are made that come after them.

    One at most waits to be done, so that memory does not grow. Left by an error, it does not begin with that one.

    Raises (on leaving, and from `do` later on):
        Exception: what doing one raises.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Have it done; first that before it is waited for."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(work)

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(cancel_futures=error is not None)
        if error is None and self._last is not None:
            self._last.result()


def side_by_side(make: Callable[[A], T], given: Iterable[A], threads: int = THREADS) -> Generator[T, None, None]:
    """What is made of each that is given, in their order: by threads, of which none is more than one ahead.

    Raises:
        Exception: what making one raises, when its turn comes.
    """
    coming: deque[Future[T]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for each in given:
            if len(coming) == threads:
                yield coming.popleft().result()
            coming.append(pool.submit(make, each))
        while coming:
            yield coming.popleft().result()
