"""Programs that outlive the orchestrator: started, watched and ended on a host through its `Remote`.

The work is done by ``supervise.sh`` on the host, so that the same holds behind SSH.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import RemoteError, WorkFailed
from orchestrator.remote.base import Remote

SCRIPT = "supervise.sh"
SCRIPT_FILE = Path(__file__).with_name(SCRIPT)

EXIT_TOO_LATE = 1
EXIT_ENDED = 3

LOG_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class ProgramState:
    """How a program stands on its host.

    Attributes:
        supervisor_pid: None when nobody keeps it.
        pid: None when it does not run.
        exit_status: with which it ended for good; None while it is kept, or when it was killed with its supervisor.
        starts: how often it was started.
    """

    program: str
    supervisor_pid: int | None
    pid: int | None
    exit_status: int | None
    starts: int

    @property
    def is_kept(self) -> bool:
        """A supervisor starts it again when it crashes."""
        return self.supervisor_pid is not None

    @property
    def is_dead(self) -> bool:
        """It does not run, and nobody is going to start it again."""
        return not self.is_kept and self.pid is None


def parse_states(text: str) -> dict[str, ProgramState]:
    """What ``supervise.sh state`` has printed, by program.

    Raises:
        ValueError: it is not that.
    """
    states = {}
    for line in text.splitlines():
        program, supervisor, pid, status, starts = line.split()
        states[program] = ProgramState(program, _number(supervisor), _number(pid), _number(status), int(starts))
    return states


def _number(text: str) -> int | None:
    return None if text == "-" else int(text)


@dataclass(frozen=True, slots=True)
class Supervision:
    """The supervised programs of one host.

    Args:
        remote: the host, connected.
        folder: the state folder, as the host resolves it.
    """

    remote: Remote
    folder: str

    def install(self) -> None:
        """Place the script.

        Raises:
            RemoteError: it could not be placed.
        """
        self.remote.upload(SCRIPT_FILE, f"{self.folder}/{SCRIPT}", mode=0o700)

    def start(self, program: str, command: Sequence[str]) -> None:
        """Start a program that is not being kept already.

        Raises:
            RemoteError: the host refused.
        """
        done = self.remote.execute(self._command("start", program, *command), idempotent=True)
        done.checked(f"{program} could not be started")

    def await_endpoint(self, program: str, timeout_s: float) -> str:
        """Where a program listens, as soon as it does.

        Raises:
            WorkFailed: it ended, or did not listen in time; the end of its log is in the text.
            RemoteError: the host was lost.
        """
        seconds = max(1, math.ceil(timeout_s))
        endpoint = f"cat {shlex.quote(f'{self.folder}/{program}.endpoint')}"
        command = f"{self._command('await', program, str(seconds))} && {endpoint}"
        done = self.remote.execute(command, timeout_s=seconds * 3 + 10, idempotent=True)
        if done.status == 0:
            return done.text
        if done.status not in (EXIT_TOO_LATE, EXIT_ENDED):
            done.checked(f"{program} could not be waited for")
        what = f"did not listen within {seconds} s" if done.status == EXIT_TOO_LATE else "ended before it listened"
        raise WorkFailed(f"{self.remote.host}: {program} {what}; its log ends with:\n{self.log_tail(program)}")

    def states(self, programs: Sequence[str]) -> dict[str, ProgramState]:
        """How programs stand.

        Raises:
            RemoteError: the host was lost, or its answer makes no sense.
        """
        command = self._command("state", *programs)
        done = self.remote.execute(command, idempotent=True).checked("the programs' state could not be asked for")
        try:
            return parse_states(done.text)
        except ValueError:
            raise RemoteError(self.remote.host, command, "not a state of programs", output=done.text) from None

    def stop(self, programs: Sequence[str], grace_s: float) -> None:
        """Ask programs to end; kill those that have not after ``grace_s``, rounded up to seconds.

        Raises:
            RemoteError: the host was lost: they may still run.
        """
        seconds = max(1, math.ceil(grace_s))
        command = self._command("stop", str(seconds), *programs)
        # Its waiting is counted in short sleeps, which on a busy host take longer than they say.
        done = self.remote.execute(command, timeout_s=seconds * 5 + 20, idempotent=True)
        done.checked("the programs could not be stopped")

    def log_tail(self, program: str) -> str:
        """The last lines that a program has logged; says so when there are none."""
        path = shlex.quote(f"{self.folder}/{program}.log")
        done = self.remote.execute(f"tail -n {LOG_TAIL_LINES} {path} 2>/dev/null", idempotent=True)
        return done.text or "(it logged nothing)"

    def _command(self, *words: str) -> str:
        return shlex.join(["sh", f"{self.folder}/{SCRIPT}", *words])
