"""Every error that edgebed raises on purpose, as one tree.

::

    EdgebedError
    ├── BadInput (ValueError)        a file, option or argument is wrong; exit status 2
    │   ├── SchemaMismatch           two sides disagree about shapes, names or versions
    │   └── MissingExtra             an optional package set is not installed
    ├── ProtocolError                bytes from a peer that the protocol does not allow
    ├── Refused                      a peer said no, with a reason
    ├── PeerLost (ConnectionError)   a peer went silent
    ├── RemoteError (OSError)        a command or transfer on a host failed
    ├── RunConflict                  a run folder cannot be used this way (changed plan, already complete)
    ├── WorkFailed                   the work was tried and failed; exit status 1
    └── OutOfOrder                   a backend's methods were called in an order that makes no sense (`edgebed.backend`)

An error is a sentence: what failed, where, what was expected and what came, and the next step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class EdgebedError(Exception):
    """Base of all errors that edgebed raises on purpose."""

    exit_status = EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file: where, what, and what is allowed instead."""

    message: str
    key: str = ""
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.message) if part)


class BadInput(EdgebedError, ValueError):
    """A file, option or argument is wrong. Carries all problems found, not just the first.

    Args:
        problems: one sentence, one ``Problem``, or all the problems of a file.
    """

    exit_status = EXIT_BAD_INPUT

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SchemaMismatch(BadInput):
    """Two sides disagree about shapes, names or versions; the text names both."""


class MissingExtra(BadInput):
    """An optional package set is needed and not installed."""

    def __init__(self, extra: str, what_for: str) -> None:
        super().__init__(
            f"{what_for} needs the extra [{extra}], which is not installed: pip install 'edgebed[{extra}]'"
        )


class ProtocolError(EdgebedError):
    """A peer sent bytes that the protocol does not allow.

    Attributes:
        code: the typed reason, one of `edgebed.protocol.messages.ErrorCode`.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class Refused(EdgebedError):
    """A peer understood and said no; ``reason`` is typed, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"refused ({reason})" + (f": {detail}" if detail else ""))


class PeerLost(EdgebedError, ConnectionError):
    """A peer went silent for longer than the liveness limit."""


class RemoteError(EdgebedError, OSError):
    """A command or transfer on a host failed.

    Attributes:
        host: the inventory's name of the host.
        command: what was asked of it.
        exit_status_remote: the command's exit status, None when it never ended.
        output: what it printed, standard error last.
    """

    def __init__(self, host: str, command: str, detail: str, *, status: int | None = None, output: str = "") -> None:
        self.host = host
        self.command = command
        self.exit_status_remote = status
        self.output = output
        text = f"{host}: {detail}: `{command}`"
        if status is not None:
            text += f" ended with status {status}"
        if output.strip():
            text += f"\n{output.strip()}"
        super().__init__(text)


class RunConflict(EdgebedError):
    """A run folder cannot be used this way, for example because its plan has changed."""

    exit_status = EXIT_BAD_INPUT


class WorkFailed(EdgebedError):
    """The work was tried and failed; what was recorded has been kept."""
