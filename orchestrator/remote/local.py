"""A `Remote` that is this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from edgebed.errors import RemoteError
from orchestrator.remote.base import DEFAULT_TIMEOUT_S, SECRET_MODE, Completed

_KILLED_OUTPUT_S = 1.0


class LocalRemote:
    """Runs ``sh -c`` on this machine; several hosts of an inventory may be this machine, each by its name."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._connected = False

    @property
    def host(self) -> str:
        """The inventory's name of the host."""
        return self._host

    def connect(self) -> None:
        """Nothing has to be reached."""
        self._connected = True

    def execute(
        self,
        command: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stdin: bytes = b"",
        idempotent: bool = False,
    ) -> Completed:
        """Run a shell command in a session of its own, so that Ctrl-C on the terminal does not reach it."""
        self._check(command)
        with self._started(command) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired:
                output = _kill(process)
                detail = f"the command did not end within {timeout_s:g} s and was killed"
                raise RemoteError(self._host, command, detail, output=output) from None
            except BaseException:
                _kill(process)
                raise
        status = process.returncode
        return Completed(self._host, command, status if status >= 0 else 128 - status, stdout, stderr)

    def _started(self, command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:  # no processes left, no memory
            raise RemoteError(self._host, command, f"could not be started: {error.strerror}") from error

    def upload(self, source: bytes | Path, path: str, *, mode: int = SECRET_MODE) -> None:
        """Write beside ``path``, then rename."""
        self._check(f"upload to {path}")
        target = self._absolute(path)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(descriptor, mode)  # the umask may have taken bits away
                    if isinstance(source, bytes):
                        file.write(source)
                    else:
                        with source.open("rb") as content:
                            shutil.copyfileobj(content, file)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise RemoteError(self._host, f"upload to {path}", str(error.strerror), status=1) from error

    def download(self, path: str, into: BinaryIO) -> int:
        """Copy a file's content."""
        self._check(f"download of {path}")
        start = into.tell()
        try:
            with self._absolute(path).open("rb") as file:
                shutil.copyfileobj(file, into)
        except OSError as error:
            raise RemoteError(self._host, f"download of {path}", str(error.strerror), status=1) from error
        return into.tell() - start

    def close(self) -> None:
        """Nothing has to be let go."""
        self._connected = False

    def _check(self, command: str) -> None:
        if not self._connected:
            raise RemoteError(self._host, command, "not connected; call connect() first")

    def _absolute(self, path: str) -> Path:
        if not path.startswith("/"):
            raise RemoteError(self._host, f"file {path}", "a path on a host has to be absolute")
        return Path(path)


def _kill(process: subprocess.Popen[bytes]) -> str:
    """Kill a command with what it started in its session, and return what it had printed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        # Something that left the session may still hold the streams open: do not wait for it.
        stdout, stderr = process.communicate(timeout=_KILLED_OUTPUT_S)
    except subprocess.TimeoutExpired as error:
        stdout, stderr = error.output or b"", error.stderr or b""
    return (stdout + stderr).decode(errors="replace")
