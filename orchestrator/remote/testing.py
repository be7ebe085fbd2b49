"""The `Remote` contract's checker, and the fake that keeps the contract without a host.

``check_remote`` is run against every Remote by ``tests/contracts/test_remotes.py``.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgebed.errors import RemoteError
from orchestrator.remote.base import DEFAULT_TIMEOUT_S, SECRET_MODE, Completed, Remote


class Answer(NamedTuple):
    """How a fake command ends.

    Attributes:
        lasts_s: how long it would run; a shorter time-out kills it. Nothing is waited for.
    """

    status: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    lasts_s: float = 0.0


Program = Callable[[bytes], Answer]
"""A fake command: standard input in, its end out."""


@dataclass(slots=True)
class FakeRemote:
    """A host in memory: files are a dictionary, commands are looked up by their text.

    Attributes:
        host: its name.
        programs: commands by their exact text; any other ends with status 127, as in a shell.
        files: content by path. modes: permissions by path.
        folders: those that exist; a file needs one.
        executed: commands in the order in which they came, those that were lost included.
        faults: how often the next calls of a verb (``connect``, ``execute``, ...) lose the connection.
    """

    host: str = "fake"
    programs: Mapping[str, Program] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    executed: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    is_connected: bool = False

    def connect(self) -> None:
        """Be reached, unless a fault is due."""
        self._fail_if_due("connect", "connect")
        self.is_connected = True

    def execute(
        self,
        command: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stdin: bytes = b"",
        idempotent: bool = False,
    ) -> Completed:
        """Look a command up."""
        self._check(command)
        self.executed.append(command)
        self._fail_if_due("execute", command)
        program = self.programs.get(command)
        answer = program(stdin) if program else Answer(127, stderr=b"sh: 1: not found")
        if answer.lasts_s > timeout_s:
            raise RemoteError(self.host, command, f"the command did not end within {timeout_s:g} s and was killed")
        return Completed(self.host, command, answer.status, answer.stdout, answer.stderr)

    def upload(self, source: bytes | Path, path: str, *, mode: int = SECRET_MODE) -> None:
        """Keep a file."""
        self._check(f"upload to {path}")
        self._fail_if_due("upload", path)
        if path.rpartition("/")[0] not in self.folders:
            raise RemoteError(self.host, f"upload to {path}", "No such file or directory", status=1)
        self.files[path] = source if isinstance(source, bytes) else source.read_bytes()
        self.modes[path] = mode

    def download(self, path: str, into: BinaryIO) -> int:
        """Give a file; with a fault due, half of it and then an error."""
        self._check(f"download of {path}")
        if path not in self.files:
            raise RemoteError(self.host, f"download of {path}", "No such file or directory", status=1)
        content = self.files[path]
        if self.faults["download"]:
            into.write(content[: len(content) // 2])
        self._fail_if_due("download", path)
        return into.write(content)

    def close(self) -> None:
        """Not be reached any more."""
        self.is_connected = False

    def _check(self, command: str) -> None:
        if not self.is_connected:
            raise RemoteError(self.host, command, "not connected; call connect() first")

    def _fail_if_due(self, verb: str, command: str) -> None:
        if self.faults[verb]:
            self.faults[verb] -= 1
            self.is_connected = False
            raise RemoteError(self.host, command, "the connection was lost")


STREAMS = "printf out; printf err >&2; exit 3"
ECHO = "cat"
BINARY = r"printf '\377\000\n\001'"
SUICIDE = "kill -9 $$"
ENDLESS = "echo begun; sleep 600"


def daemon_commands(folder: str) -> tuple[str, str]:
    """Start something in the background; end it, which fails when it does not live."""
    start = f"sleep 600 >/dev/null 2>&1 </dev/null & echo $! > '{folder}/daemon.pid'"
    return start, f"kill \"$(cat '{folder}/daemon.pid')\""


def mode_command(path: str) -> str:
    """Show a file's permissions, as ``ls -l`` does."""
    return f"ls -l '{path}' | cut -c1-10"


def checked_programs(folder: str) -> dict[str, Program]:
    """The commands of the checker, for a `FakeRemote`, as a real host would answer them."""
    start, end = daemon_commands(folder)
    return {
        STREAMS: lambda stdin: Answer(3, b"out", b"err"),
        ECHO: lambda stdin: Answer(0, stdin),
        BINARY: lambda stdin: Answer(0, b"\xff\x00\n\x01"),
        SUICIDE: lambda stdin: Answer(137),
        ENDLESS: lambda stdin: Answer(0, b"begun\n", lasts_s=600.0),
        start: lambda stdin: Answer(),
        end: lambda stdin: Answer(),
        mode_command(f"{folder}/secret"): lambda stdin: Answer(0, b"-rw-------\n"),
        mode_command(f"{folder}/script"): lambda stdin: Answer(0, b"-rwx------\n"),
    }


def check_remote(make: Callable[[], Remote], folder: str) -> None:
    """Check that a Remote keeps the contract of `orchestrator.remote.base`.

    Args:
        make: makes a new Remote, not connected.
        folder: an empty folder on its host.

    Raises:
        AssertionError: it breaks the contract; the text says which rule.
    """
    _check_unconnected(make())
    remote = make()
    remote.connect()
    remote.connect()
    try:
        _check_commands(remote)
        _check_time_limit(remote)
        _check_daemon(remote, folder)
        _check_files(remote, folder)
        _check_threads(remote)
    finally:
        remote.close()
        remote.close()
    _check_unconnected(remote)
    remote.connect()
    _expect(remote.execute(ECHO, stdin=b"again").stdout == b"again", "a closed remote can be connected again")
    remote.close()


def _check_unconnected(remote: Remote) -> None:
    _expect(bool(remote.host), "a remote names its host")
    for verb, call in (
        ("execute", lambda: remote.execute(ECHO)),
        ("upload", lambda: remote.upload(b"", "/tmp/never")),  # noqa: S108  (never written)
        ("download", lambda: remote.download("/dev/null", io.BytesIO())),
    ):
        _fails(call, f"{verb} without a connection")


def _check_commands(remote: Remote) -> None:
    done = remote.execute(STREAMS)
    _expect((done.status, done.stdout, done.stderr) == (3, b"out", b"err"), f"status and both streams come: {done}")
    error = _fails(done.checked, "checked() with a status other than 0")
    carried = (error.host, error.command, error.exit_status_remote, error.output)
    _expect(carried == (remote.host, STREAMS, 3, "outerr"), f"an error carries host, command, status, output: {error}")
    _expect(remote.execute(ECHO, stdin=b"a\x00b" * 50_000).stdout == b"a\x00b" * 50_000, "standard input arrives whole")
    _expect(remote.execute(ECHO).stdout == b"", "without input a command reads the end of the file at once")
    _expect(remote.execute(BINARY).stdout == b"\xff\x00\n\x01", "output is bytes, unchanged")
    _expect(remote.execute(SUICIDE).status == 137, "a command that signal 9 ended has status 137")
    _expect(remote.execute("edgebed-no-such-program").status == 127, "an unknown command ends with status 127")


def _check_time_limit(remote: Remote) -> None:
    error = _fails(lambda: remote.execute(ENDLESS, timeout_s=0.3), "a command that does not end in time")
    _expect(error.command == ENDLESS and "0.3 s" in str(error), f"its error names the command and the limit: {error}")
    _expect(error.exit_status_remote is None, "its error has no exit status")
    _expect(remote.execute(ECHO, stdin=b"on").stdout == b"on", "after a time-out the remote goes on working")


def _check_daemon(remote: Remote, folder: str) -> None:
    start, end = daemon_commands(folder)
    remote.execute(start, timeout_s=10.0).checked("starting in the background returns at once")
    _expect(remote.execute(end).status == 0, "what was started in the background lives on")


def _check_files(remote: Remote, folder: str) -> None:
    content = bytes(range(256)) * 1000
    remote.upload(content, f"{folder}/secret")
    into = io.BytesIO()
    into.write(b"before")
    got = remote.download(f"{folder}/secret", into)
    _expect(got == len(content), f"download says how many bytes came: {got}")
    _expect(into.getvalue() == b"before" + content, "a file comes back as it was placed, after what was there")
    _expect(remote.execute(mode_command(f"{folder}/secret")).text == "-rw-------", "uploads are for the owner alone")
    remote.upload(b"#!/bin/sh\n", f"{folder}/script", mode=0o700)
    _expect(remote.execute(mode_command(f"{folder}/script")).text == "-rwx------", "an upload has the mode asked for")
    remote.upload(Path(__file__), f"{folder}/secret")
    into = io.BytesIO()
    remote.download(f"{folder}/secret", into)
    _expect(into.getvalue() == Path(__file__).read_bytes(), "an upload of a local file replaces what was there")
    for call, what in (
        (lambda: remote.download(f"{folder}/missing", io.BytesIO()), "missing"),
        (lambda: remote.upload(b"", f"{folder}/no-folder/file"), "no-folder"),
    ):
        error = _fails(call, f"a path that is {what}")
        _expect(error.host == remote.host and what in str(error), f"its error names host and path: {error}")
        _expect(error.exit_status_remote is not None, f"the host's own answer carries a status: {error}")


def _check_threads(remote: Remote) -> None:
    answers: dict[int, bytes] = {}

    def ask(number: int) -> None:
        answers[number] = remote.execute(ECHO, stdin=str(number).encode()).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    _expect(answers == {number: str(number).encode() for number in range(4)}, "threads get their own answers")


def _fails(call: Callable[[], object], what: str) -> RemoteError:
    try:
        call()
    except RemoteError as error:
        return error
    raise AssertionError(f"{what} raises RemoteError")


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)
