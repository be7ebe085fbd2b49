"""A `Remote` over SSH."""

from __future__ import annotations

import io
import posixpath
import secrets
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import paramiko

from edgebed.errors import RemoteError
from orchestrator.remote.base import DEFAULT_TIMEOUT_S, SECRET_MODE, Completed
from orchestrator.remote.host_keys import KnownHosts
from orchestrator.remote.ssh_command import (
    LONGEST_COMMAND_BYTES,
    Ended,
    Lost,
    Overdue,
    Patience,
    Sink,
    SshCommand,
    kill_command,
)
from orchestrator.remote.ssh_config import SshTarget
from orchestrator.remote.ssh_link import Link, open_link

OUTPUT_LIMIT_BYTES = 64 << 20
STALL_S = 60.0
"""A transfer that does not get on for so long is given up."""

_DOWNLOAD_WINDOW_BYTES = 4 << 20
_KILLED = "was killed"
_KILL_TIMEOUT_S = 5.0
_KILLED_OUTPUT_S = 1.0
# OpenSSH opens 10 sessions a connection (MaxSessions); some stay free for killing what is overdue.
_SESSIONS_AT_ONCE = 8
_SESSION_WAIT_S = 5.0
_SESSION_POLL_S = 0.02

# Written beside the target and complete before it is named: what a cut connection leaves is never taken for the file.
_UPLOAD = """
umask 077
if [ -d "$target" ]; then echo "$target: is a directory" >&2; exit 21; fi
trap 'rm -f "$temporary"' EXIT
trap 'exit 129' HUP INT TERM PIPE
cat >"$temporary" || exit 1
if [ "$(($(wc -c <"$temporary")))" -ne $size_bytes ]; then echo "only a part of $size_bytes bytes came" >&2; exit 74; fi
chmod $mode "$temporary" && { sync "$temporary" 2>/dev/null || sync; } && mv -f "$temporary" "$target" || exit 1
sync "$folder" 2>/dev/null || sync
"""


class SshRemote:
    """A host over SSH: one connection, and a channel of it for each command.

    Files go through commands, too, so that a host without the sftp subsystem will do. A connection that was lost is
    made again when the next thing is asked for; what was lost with it is not asked again, see `RetryingRemote`.

    Args:
        target: where it is, from `orchestrator.remote.ssh_config`.
        known_hosts: the keys that hosts may show.
    """

    def __init__(self, target: SshTarget, known_hosts: KnownHosts) -> None:
        self.target = target
        self._known_hosts = known_hosts
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(_SESSIONS_AT_ONCE)
        self._link: Link | None = None
        self._is_wanted = False

    @property
    def host(self) -> str:
        """The inventory's name of the host."""
        return self.target.name

    def connect(self) -> None:
        """Reach the host.

        Raises:
            Unreachable: why it cannot be, and the next step.
        """
        self._is_wanted = True
        self._linked("connect")

    def execute(
        self,
        command: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stdin: bytes = b"",
        idempotent: bool = False,
    ) -> Completed:
        """Run a shell command; what it prints may be `OUTPUT_LIMIT_BYTES` long."""
        stdout = _Output()
        try:
            ended = self._run(command, command, io.BytesIO(stdin), stdout, Patience(timeout_s))
        except _TooMuch:
            detail = f"the command printed more than {OUTPUT_LIMIT_BYTES >> 20} MiB and was killed; use a file"
            raise RemoteError(self.host, command, detail) from None
        return Completed(self.host, command, ended.status, stdout.getvalue(), ended.stderr)

    def upload(self, source: bytes | Path, path: str, *, mode: int = SECRET_MODE) -> None:
        """Write beside ``path``, see that all has come and is on the disk, then rename."""
        what = f"upload to {path}"
        stdout = _Output()
        with self._own_files(what), _opened(source) as (file, size_bytes):
            command = self._upload_command(path, size_bytes, mode)
            ended = self._run(command, what, file, stdout, Patience(STALL_S, each_step=True))
        self._checked(what, ended, f"could not write {path}")

    def download(self, path: str, into: BinaryIO) -> int:
        """Copy a file's content."""
        what = f"download of {path}"
        counted = _Counted(into)
        with self._own_files(what):
            command = f"cat {shlex.quote(self._absolute(path))}"
            patience = Patience(STALL_S, each_step=True)
            ended = self._run(command, what, io.BytesIO(), counted, patience, window_bytes=_DOWNLOAD_WINDOW_BYTES)
        self._checked(what, ended, f"could not read {path}")
        return counted.count

    def close(self) -> None:
        """Let the host go; commands that are running there go on."""
        self._is_wanted = False
        with self._lock:
            self._drop()

    @property
    def is_indirect(self) -> bool:
        """Is it reached over another host or by a command?"""
        return bool(self.target.jumps or self.target.proxy_command)

    def open_stream(self, address: str, port: int) -> paramiko.Channel:
        """Connect to a port that the host can reach."""
        what = f"tunnel to {address} port {port}"
        transport = self._linked(what).transport
        try:
            return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=STALL_S)
        except (paramiko.SSHException, OSError, EOFError) as error:
            detail = f"could not be opened ({error}); does its sshd_config allow AllowTcpForwarding?"
            raise RemoteError(self.host, what, detail) from error

    # -- the connection ------------------------------------------------------------------------------------------------

    def _linked(self, what: str) -> Link:
        """The connection; made when there is none."""
        with self._lock:
            if not self._is_wanted:
                raise RemoteError(self.host, what, "not connected; call connect() first")
            if self._link is None or not self._link.is_alive:
                self._drop()
                self._link = open_link(self.target, self._known_hosts)
                self._known_hosts.note(self.host, self._link.host_key, is_new=self._link.is_new)
            return self._link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _session(self, what: str, patience: Patience, window_bytes: int) -> tuple[Link, paramiko.Channel]:
        """A channel for a command; nothing was run yet, so a connection that turns out to be lost is made again."""
        begin_s = time.monotonic()
        has_lost = False
        while True:
            link = self._linked(what)
            try:
                return link, link.open_session(patience.left_s(), window_bytes)
            except Overdue:
                raise RemoteError(self.host, what, f"did not {patience}: it was not run") from None
            except (paramiko.SSHException, OSError, EOFError) as error:
                if not _is_refusal(error, link):
                    if has_lost:
                        raise RemoteError(self.host, what, f"the connection was lost ({error}): not run") from error
                    has_lost = True
                    self._forget(link)
                elif "Timeout" in str(error):  # paramiko has no type for it
                    raise RemoteError(self.host, what, f"no answer within {patience.limit_s:g} s: not run") from error
                elif time.monotonic() - begin_s >= _SESSION_WAIT_S:
                    detail = f"opens no session ({error}): not run; raise MaxSessions in its sshd_config"
                    raise RemoteError(self.host, what, detail) from error
                else:  # it is slow to count a session that has just ended, or opens fewer at once than OpenSSH does
                    time.sleep(_SESSION_POLL_S)

    def _forget(self, link: Link) -> None:
        """Let a connection go that is lost, whether paramiko has noticed it or not."""
        with self._lock:
            if self._link is link:
                self._drop()

    # -- a command -----------------------------------------------------------------------------------------------------

    def _run(
        self,
        command: str,
        what: str,
        source: BinaryIO,
        sink: Sink,
        patience: Patience,
        *,
        window_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Ended:
        if len(command.encode()) > LONGEST_COMMAND_BYTES or "\0" in command:
            detail = f"a command may have {LONGEST_COMMAND_BYTES} bytes and no zero byte; upload a script instead"
            raise RemoteError(self.host, command[:200], detail)
        with self._turn(what, patience):
            link, channel = self._session(what, patience, window_bytes)
            running = SshCommand(channel, patience)
            try:
                return running.run(command, source, sink)
            except Overdue:
                raise self._overdue(what, link, running, sink, patience) from None
            except Lost as error:
                detail = f"the connection was lost ({error}): what became of it is not known"
                raise RemoteError(self.host, what, detail, output=_printed(sink, running)) from error
            except BaseException:
                self._kill(link, running)
                raise
            finally:
                channel.close()

    @contextmanager
    def _turn(self, what: str, patience: Patience) -> Iterator[None]:
        if not self._sessions.acquire(timeout=patience.left_s()):
            detail = f"{_SESSIONS_AT_ONCE} other commands kept the host for {patience.limit_s:g} s: not run"
            raise RemoteError(self.host, what, detail)
        try:
            yield
        finally:
            self._sessions.release()

    def _overdue(self, what: str, link: Link, running: SshCommand, sink: Sink, patience: Patience) -> RemoteError:
        fate = self._kill(link, running)
        if fate == _KILLED:
            running.finish_reading(sink, _KILLED_OUTPUT_S)
        detail = f"the command did not {patience} and {fate}"
        return RemoteError(self.host, what, detail, output=_printed(sink, running))

    def _kill(self, link: Link, running: SshCommand) -> str:
        """Kill a command and what it started in its foreground; says what came of it."""
        pid = running.pid
        if pid is None:
            return "the host has not said that it has begun: whether it runs is not known"
        try:
            try:
                status = _kill_over(link, pid)
            except paramiko.SSHException as error:
                if "Timeout" in str(error):
                    raise
                other = open_link(self.target, self._known_hosts)  # the host opens no second session on one connection
                with closing(other):
                    status = _kill_over(other, pid)
        except (Overdue, Lost, paramiko.SSHException, OSError, EOFError):
            return "could not be killed: it may go on, the host does not answer"
        return _KILLED if status == 0 else "could not be killed: it goes on, as another user or in the kernel"

    # -- files ---------------------------------------------------------------------------------------------------------

    def _upload_command(self, path: str, size_bytes: int, mode: int) -> str:
        folder, name = posixpath.split(self._absolute(path))
        temporary = posixpath.join(folder, f".{name}.{secrets.token_hex(4)}")
        words = {
            "target": path,
            "temporary": temporary,
            "folder": folder,
            "size_bytes": size_bytes,
            "mode": f"{mode:o}",
        }
        return "".join(f"{name}={shlex.quote(str(word))}\n" for name, word in words.items()) + _UPLOAD

    def _absolute(self, path: str) -> str:
        if not path.startswith("/"):
            raise RemoteError(self.host, f"file {path}", "a path on a host has to be absolute")
        return path

    def _checked(self, what: str, ended: Ended, detail: str) -> None:
        Completed(self.host, what, ended.status, stderr=ended.stderr).checked(detail)

    @contextmanager
    def _own_files(self, what: str) -> Iterator[None]:
        """Errors of files on this machine, as those of the host."""
        try:
            yield
        except RemoteError:
            raise
        except OSError as error:
            raise RemoteError(self.host, what, f"on this machine: {error}", status=1) from error


def _kill_over(link: Link, pid: int) -> int:
    """Kill a command over a connection; 0 when nothing of it is left."""
    patience = Patience(_KILL_TIMEOUT_S)
    with link.open_session(patience.left_s()) as channel:
        return SshCommand(channel, patience).run(kill_command(pid), io.BytesIO(), io.BytesIO()).status


def _is_refusal(error: Exception, link: Link) -> bool:
    """Whether a session was refused or not answered on a connection that stands."""
    # Not every refusal is a ChannelException: of two at once, paramiko hands one of them a plain SSHException.
    return isinstance(error, paramiko.ChannelException) or (isinstance(error, paramiko.SSHException) and link.is_alive)


class _TooMuch(Exception):
    """A command prints more than is kept."""


class _Output(io.BytesIO):
    """What a command prints."""

    def write(self, data: object, /) -> int:
        """Take some.

        Raises:
            _TooMuch: it is more than is kept.
        """
        assert isinstance(data, bytes)
        if self.tell() + len(data) > OUTPUT_LIMIT_BYTES:
            raise _TooMuch
        return super().write(data)


class _Counted:
    """Counts what is written to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def write(self, data: bytes, /) -> object:
        """Write some."""
        self.count += len(data)
        return self._file.write(data)


@contextmanager
def _opened(source: bytes | Path) -> Iterator[tuple[BinaryIO, int]]:
    """What is to be uploaded, and how long it is."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), len(source)
        return
    with source.open("rb") as file:
        yield file, source.stat().st_size


def _printed(sink: Sink, running: SshCommand) -> str:
    stdout = sink.getvalue() if isinstance(sink, io.BytesIO) else b""
    return (stdout + running.stderr).decode(errors="replace")
