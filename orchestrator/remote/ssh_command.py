"""One command on a connection: begun, fed, read, and killed when it takes too long.

The command runs in a shell below one of our own, which first says its process number, on standard error, and that it
has begun, on both streams. So what a login script prints is no part of the output, a command that a signal ends has a
status, and what does not end can be killed with all that it started in its foreground. The login shell of the host has
to understand ``exec`` and single quotes; sh, bash, dash, zsh, ksh and fish do.
"""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from contextlib import suppress
from typing import BinaryIO, NamedTuple, Protocol

import paramiko

CHUNK_BYTES = 32_768
READ_BYTES = 1 << 20
LONGEST_COMMAND_BYTES = 120_000
"""Linux takes no single argument above 128 KiB."""

_SHELL = 'printf "%s:%s\\n" "$2" "$$" >&2; printf "%s\\n" "$2"; sh -c "$1"; exit $?'

# Killed processes are gone within moments; those that are someone else's (sudo's) are not ours to kill.
_KILL = """
left() {
  for f in /proc/[0-9]*/stat; do
    { read -r line <"$f"; } 2>/dev/null || continue
    set -- ${line##*) }
    [ "$3" = PID ] && [ "$1" != Z ] && return 0
  done
  return 1
}
kill -s KILL -- -PID 2>/dev/null || kill -s KILL PID 2>/dev/null
tries=0
while left; do
  tries=$((tries + 1))
  [ $tries -eq 3 ] && sudo -n kill -s KILL -- -PID 2>/dev/null
  # A killed process ends only when the kernel next runs it: on a busy host that takes a while.
  [ $tries -le 10 ] || sleep 0.1
  [ $tries -lt 30 ] || exit 1
done
"""


class Overdue(Exception):
    """It took longer than it may."""


class Lost(Exception):
    """The connection ended; what the command does is not known."""


class Sink(Protocol):
    """Where output goes."""

    def write(self, data: bytes, /) -> object:
        """Take some."""
        ...


class Patience:
    """How long may still be waited.

    Args:
        limit_s: until the end, or
        each_step: for each thing that is waited for, so that what gets on, however slowly, is left alone.
    """

    def __init__(self, limit_s: float, *, each_step: bool = False) -> None:
        self.limit_s = limit_s
        self.is_each_step = each_step
        self._end_s = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds, above 0.

        Raises:
            Overdue: there are none.
        """
        left_s = self.limit_s if self.is_each_step else self._end_s - time.monotonic()
        if left_s <= 0:
            raise Overdue
        return left_s

    def __str__(self) -> str:
        return f"{'get on' if self.is_each_step else 'end'} within {self.limit_s:g} s"


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    stderr: bytes


class SshCommand:
    """A command on a channel of its own.

    Args:
        channel: just opened.
        patience: for all that follows.
    """

    def __init__(self, channel: paramiko.Channel, patience: Patience) -> None:
        self._channel = channel
        self._patience = patience
        self._mark = f"edgebed-{secrets.token_hex(8)}".encode()
        self._before = b""
        self._has_begun = False
        self._stderr = b""

    def run(self, command: str, source: BinaryIO, sink: Sink) -> Ended:
        """Run it to its end.

        Args:
            command: for ``sh -c``.
            source: what it reads.
            sink: takes what it writes to standard output.

        Raises:
            Overdue: it did not end in time; `kill` it.
            Lost: the connection ended.
        """
        try:
            self._begin(command)
            self._feed(source, sink)
            self._read(sink)
            status = self._status()
        except TimeoutError:
            raise Overdue from None
        return Ended(status, self.stderr)

    @property
    def pid(self) -> int | None:
        """The number of its process on the host, which leads a process group; None: nothing is known of it."""
        self._take_stderr()
        _, found, rest = self._stderr.partition(self._mark + b":")
        number, has_all, _ = rest.partition(b"\n")
        return int(number) if found and has_all else None

    @property
    def stderr(self) -> bytes:
        """What it has written to standard error."""
        self._take_stderr()
        _, found, rest = self._stderr.partition(self._mark + b":")
        return rest.partition(b"\n")[2] if found else self._stderr

    def finish_reading(self, sink: Sink, limit_s: float) -> None:
        """Take what is still on its way from a command that was killed."""
        self._patience = Patience(limit_s)
        with suppress(Overdue, Lost, TimeoutError):
            self._read(sink)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _begin(self, command: str) -> None:
        # paramiko waits for the answer for ever, on this event.
        self._channel.event = _Bounded(self._patience)
        line = shlex.join(["exec", "sh", "-c", _SHELL, "sh", command, self._mark.decode()])
        try:
            self._channel.exec_command(line)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Lost(str(error)) from error

    def _feed(self, source: BinaryIO, sink: Sink) -> None:
        """Give it what it reads, as long as it reads."""
        while data := source.read(CHUNK_BYTES):
            while data:
                if self._channel.recv_ready():
                    self._pour(sink)
                self._channel.settimeout(self._patience.left_s())
                try:
                    data = data[self._channel.send(data) :]
                except TimeoutError:
                    raise
                except (paramiko.SSHException, OSError, EOFError):
                    return  # it has ended without reading all; `_status` says how
        with suppress(paramiko.SSHException, OSError, EOFError):
            self._channel.shutdown_write()

    def _read(self, sink: Sink) -> None:
        while self._pour(sink):
            pass

    def _pour(self, sink: Sink) -> bool:
        """Take some of its standard output; whether there may be more."""
        self._channel.settimeout(self._patience.left_s())
        data = self._channel.recv(READ_BYTES)
        if self._has_begun:
            sink.write(data)
        else:
            _, found, rest = (self._before + data).partition(self._mark + b"\n")
            self._has_begun = bool(found)
            self._before = b"" if found else self._before + data
            sink.write(rest)
        return bool(data)

    def _status(self) -> int:
        if not self._channel.status_event.wait(self._patience.left_s()):
            raise Overdue
        status = self._channel.recv_exit_status()
        if status < 0:  # the channel was closed without one
            raise Lost("its end was not told")
        return status

    def _take_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self._stderr += self._channel.recv_stderr(READ_BYTES)


class _Bounded(threading.Event):
    """An event that is not waited for longer than one has patience."""

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it.

        Raises:
            Overdue: it did not come in time.
        """
        left_s = self._patience.left_s()
        if not super().wait(left_s if timeout is None else min(timeout, left_s)):
            raise Overdue
        return True


def kill_command(pid: int) -> str:
    """A command that kills another one, with all that it started in its foreground; status 0 when nothing is left."""
    return _KILL.replace("PID", str(pid))
