"""The `Remote` contract: all that the orchestrator ever does on a host, in five verbs.

A host may be this machine or one behind SSH; nothing that uses a Remote can tell. `orchestrator.remote.testing` ships
the contract's checker and its fake.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from edgebed.errors import RemoteError

DEFAULT_TIMEOUT_S = 60.0
SECRET_MODE = 0o600
"""Mode of an uploaded file unless another is asked for: only its owner reads it."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended, however it ended.

    Attributes:
        status: its exit status; 128 + n when signal n ended it.
    """

    host: str
    command: str
    status: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def text(self) -> str:
        """Standard output as text, without the white space around it."""
        return self.stdout.decode(errors="replace").strip()

    def checked(self, what: str = "the command failed") -> Completed:
        """Itself, when the status is 0.

        Raises:
            RemoteError: it is not; carries host, command, status and all output.
        """
        if self.status == 0:
            return self
        output = (self.stdout + self.stderr).decode(errors="replace")
        raise RemoteError(self.host, self.command, what, status=self.status, output=output)


class Remote(Protocol):
    """A host, and the right to run commands and to place files there.

    Paths are absolute and in the host's own notation. Several threads may use a Remote at once. An error that carries
    an exit status is the host's own answer; one without means that the host did not answer, and what it did is unknown.
    """

    @property
    def host(self) -> str:
        """The inventory's name of the host."""
        ...

    def connect(self) -> None:
        """Reach the host; harmless when it is reached already.

        Raises:
            RemoteError: it cannot be reached.
        """
        ...

    def execute(
        self,
        command: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stdin: bytes = b"",
        idempotent: bool = False,
    ) -> Completed:
        """Run a POSIX shell command and wait for its end.

        What the command has started in the background, with its streams redirected, lives on.

        Args:
            command: for ``sh -c``.
            timeout_s: after so long the command and what it started in its foreground are killed.
            stdin: what it reads.
            idempotent: running it twice does what running it once does, so that a wrapper may repeat it.

        Returns:
            How it ended; a status other than 0 is no error here, see `Completed.checked`.

        Raises:
            RemoteError: it did not end in time, or the host was lost: whether it ran is unknown then.
        """
        ...

    def upload(self, source: bytes | Path, path: str, *, mode: int = SECRET_MODE) -> None:
        """Place a file, all of it or nothing, replacing one of that name; its folder has to be there.

        Args:
            source: the content, or a local file that has it.
            path: where on the host.
            mode: permissions, from the first byte on.

        Raises:
            RemoteError: it could not be written (with a status), or the host was lost.
        """
        ...

    def download(self, path: str, into: BinaryIO) -> int:
        """Copy a file's content to the end of what ``into`` has; returns how many bytes came.

        Raises:
            RemoteError: there is no such file (with a status), or it could not be read to its end.
        """
        ...

    def close(self) -> None:
        """Let the host go. Harmless when it is not reached; `connect` may follow."""
        ...
