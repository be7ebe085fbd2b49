"""One process a cell on this machine, started afresh (spawn), so that no lock or thread of the driver is inherited.

As with all such processes in Python, a script that uses this needs ``if __name__ == "__main__":`` around its work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from edgebed.learning.base import Cell, CellWorker
from edgebed.learning.executor.recovering import Handle, RecoveringExecutor, WorkerLostError
from edgebed.learning.executor.serving import Server

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries of linear algebra read when they are loaded."""

_STOP_S = 5.0


class ProcessExecutor(RecoveringExecutor):
    """Runs each cell in a process of its own, with one thread."""

    def make_handle(self, kind: type[CellWorker], cell: Cell) -> Handle:
        """Start a process."""
        return _ProcessHandle(kind, cell)


class _ProcessHandle(Handle):
    def __init__(self, kind: type[CellWorker], cell: Cell) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, kind, cell), name=f"edgebed-cell-{cell.index}", daemon=True
        )
        with _one_thread_each():
            self._process.start()
        theirs.close()  # else the end of the process would not close the pipe

    def submit(self, content: bytes) -> None:
        try:
            self._pipe.send_bytes(content)
        except OSError:
            return  # it has died, which `result` finds as well

    def result(self) -> bytes:
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._process.join(_STOP_S)
            raise WorkerLostError(f"the worker (process {self.pid}) {self._how_it_ended()}") from None

    def _how_it_ended(self) -> str:
        code = self._process.exitcode
        if code is None:
            return "closed its pipe"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def stop(self) -> None:
        self._pipe.close()  # the process ends when it sees that
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside load their libraries with one thread: more would only disturb each other."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, kind: type[CellWorker], cell: Cell) -> None:
    """A worker's process: answer until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver says what is to happen
    server = Server(kind, cell)
    try:
        pipe.send_bytes(server.first_answer)
        while True:
            pipe.send_bytes(server.answer(pipe.recv_bytes()))
    except (EOFError, OSError):
        return
