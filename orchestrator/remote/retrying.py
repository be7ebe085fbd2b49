"""A `Remote` around another one that tries again where that cannot do harm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from edgebed.clock import Clock, MonotonicClock
from edgebed.errors import RemoteError
from edgebed.protocol.liveness import Backoff
from orchestrator.remote.base import DEFAULT_TIMEOUT_S, SECRET_MODE, Completed, Remote
from orchestrator.remote.unreachable import Unreachable

T = TypeVar("T")


class RetryingRemote:
    """Repeats `connect`, `download` and commands marked idempotent, over a new connection each time.

    Nothing else: whether a command ran is not known when the connection was lost while it was on its way. What the host
    answered, whatever it was, is not asked again.

    Args:
        inner: who does the work.
        tries: how often at most, the first included.
        clock: waits between tries; the waits double.
        first_wait_s: the first of them.
    """

    def __init__(self, inner: Remote, *, tries: int = 3, clock: Clock | None = None, first_wait_s: float = 0.5) -> None:
        self._inner = inner
        self._tries = tries
        self._clock = clock or MonotonicClock()
        self._first_wait_s = first_wait_s
        self._is_wanted = False

    @property
    def host(self) -> str:
        """The inventory's name of the host."""
        return self._inner.host

    @property
    def inner(self) -> Remote:
        """Who does the work; it may have abilities beyond those of every `Remote`."""
        return self._inner

    def connect(self) -> None:
        """Reach the host, in several tries."""
        self._repeat(self._inner.connect, may_reconnect=False)
        self._is_wanted = True

    def execute(
        self,
        command: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stdin: bytes = b"",
        idempotent: bool = False,
    ) -> Completed:
        """Run a command; again only when it is idempotent."""

        def once() -> Completed:
            return self._inner.execute(command, timeout_s=timeout_s, stdin=stdin, idempotent=idempotent)

        return self._repeat(once) if idempotent else once()

    def upload(self, source: bytes | Path, path: str, *, mode: int = SECRET_MODE) -> None:
        """Place a file, once: a first try that was thought lost could otherwise undo what came after it."""
        self._inner.upload(source, path, mode=mode)

    def download(self, path: str, into: BinaryIO) -> int:
        """Copy a file's content; what an unfinished try has left in ``into`` is cut off."""
        start = into.tell()

        def once() -> int:
            into.seek(start)
            into.truncate()
            return self._inner.download(path, into)

        return self._repeat(once)

    def close(self) -> None:
        """Let the host go."""
        self._is_wanted = False
        self._inner.close()

    def _repeat(self, once: Callable[[], T], *, may_reconnect: bool = True) -> T:
        backoff = Backoff(first_s=self._first_wait_s, limit_s=8.0 * self._first_wait_s)
        for _ in range(self._tries - 1):
            try:
                return once()
            except RemoteError as error:
                # The host's answer, and what trying again does not change: a wrong key, a changed host key.
                is_lasting = isinstance(error, Unreachable) and not error.may_pass
                was_answered = error.exit_status_remote is not None or is_lasting
                if was_answered or (may_reconnect and not self._is_wanted):
                    raise
            self._clock.sleep(backoff.next_wait_s())
            if may_reconnect:
                self._reconnect()
        return once()

    def _reconnect(self) -> None:
        self._inner.close()
        with suppress(RemoteError):  # the next try says what is wrong
            self._inner.connect()
