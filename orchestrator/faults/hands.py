"""Who does faults to a host: on this machine, or behind SSH. The work is done by ``faults.sh`` on the host."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import WorkFailed
from orchestrator.faults.schedule import Act
from orchestrator.inventory import Host
from orchestrator.remote.base import Remote

SCRIPT = "faults.sh"
SCRIPT_FILE = Path(__file__).with_name(SCRIPT)

EXIT_NOTHING_THERE = 3
EXIT_NOT_OVER = 5

NOBODY = "nobody"
"""Who lifted a fault that was never there."""

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Hands:
    """What every host can: have its faults lifted.

    Args:
        host: as the plan has it.
        remote: connected.
        folder: the run's state folder there.
        pid_of: the process of a program; None when it does not run.
    """

    host: Host
    remote: Remote
    folder: str
    pid_of: Callable[[str], int | None]

    def prepare(self) -> None:
        """Place the script.

        Raises:
            RemoteError: it could not be placed.
        """
        self.remote.upload(SCRIPT_FILE, f"{self.folder}/{SCRIPT}", mode=0o700)

    def why_not(self, kind: str) -> str:
        """Why this host, as it is, cannot do a kind of fault; empty when it can.

        Raises:
            RemoteError: the host was lost.
        """
        done = self.remote.execute(self._command("able", kind), idempotent=True)
        if done.status == 0:
            return ""
        return done.text or done.stderr.decode(errors="replace").strip()

    def lift(self, act_id: str, by: str) -> str | None:
        """End a fault now, unless it has ended.

        Args:
            act_id: of one that has begun, or perhaps has.
            by: what ends it, in a word.

        Returns:
            What has ended it; `NOBODY` when it had not begun; None when that takes longer.

        Raises:
            RemoteError: the host was lost, or could not lift it.
        """
        done = self.remote.execute(self._command("lift", act_id, by), timeout_s=TIMEOUT_S, idempotent=True)
        if done.status == EXIT_NOT_OVER:
            return None
        return done.checked("a fault could not be lifted").text

    def lift_all(self, by: str) -> dict[str, str]:
        """End whatever of this run has not ended.

        Returns:
            What has ended each fault of the run that was done here, by its id.

        Raises:
            RemoteError: the host was lost, or could not lift one.
        """
        script = shlex.quote(f"{self.folder}/{SCRIPT}")
        command = f"test ! -e {script} || {self._command('lift_all', by)}"
        done = self.remote.execute(command, timeout_s=TIMEOUT_S, idempotent=True)
        if done.status != EXIT_NOT_OVER:
            done.checked("faults could not be lifted")
        return dict(line.split(maxsplit=1) for line in done.text.splitlines())

    def _begin(self, act: Act, *arguments: str) -> None:
        """Do a fault.

        Raises:
            WorkFailed: there is nothing to do it to. RemoteError: the host was lost, or refused.
        """
        words = ("begin", act.id, f"{act.fault.for_s:g}", act.fault.kind, *arguments)
        done = self.remote.execute(self._command(*words), timeout_s=TIMEOUT_S)
        if done.status == EXIT_NOTHING_THERE:
            raise WorkFailed(f"{self.remote.host}: {act.fault.program} does not run")
        done.checked(f"the fault {act.fault.kind} could not be done")

    def _pid(self, act: Act) -> str:
        pid = self.pid_of(act.fault.program)
        if pid is None:
            raise WorkFailed(f"{self.remote.host}: {act.fault.program} does not run")
        return str(pid)

    def _command(self, *words: str) -> str:
        return shlex.join(["sh", f"{self.folder}/{SCRIPT}", *words])


@dataclass(frozen=True, slots=True)
class LocalHands(Hands):
    """A host that is some programs on this machine: only those are touched, never the machine."""

    def kill(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanKill`."""
        self._begin(act, self._pid(act))

    def stop(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanPause`."""
        self._begin(act, self._pid(act))


@dataclass(frozen=True, slots=True)
class OwnHands(LocalHands):
    """A host of its own, with a disk and a power switch."""

    def reboot(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanReboot`."""
        self._begin(act)

    def fill_disk(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanFillDisk`; by one file under ``~/.edgebed``."""
        self._begin(act, f"{act.fault.parameters['leave_bytes']:.0f}")


@dataclass(frozen=True, slots=True)
class SshHands(OwnHands):
    """A host behind SSH; all but programs and disk needs sudo without a password."""

    def cut_link(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanCutLink`; by nft. The connection of the orchestrator stays."""
        self._begin(act)

    def slow_link(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanSlowLink`; by tc and netem, for what the host sends."""
        told = act.fault.parameters
        words: list[str] = []
        if "delay_s" in told:
            words += ["delay", f"{told['delay_s'] * 1000:.3f}ms"]
        if "loss" in told:
            words += ["loss", f"{told['loss'] * 100:.4f}%"]
        if "rate_bps" in told:
            words += ["rate", f"{told['rate_bps']:.0f}bit"]
        self._begin(act, *words)

    def throttle(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanThrottle`; by the kernel's highest frequency."""
        self._begin(act, f"{act.fault.parameters['fraction']:g}")

    def step_clock(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanStepClock`."""
        self._begin(act, f"{act.fault.parameters['by_s']:g}")


def do(hands: Hands, act: Act) -> None:
    """Do a fault to a host that can.

    Raises:
        WorkFailed: there is nothing to do it to.
        RemoteError: the host was lost, or refused.
    """
    # The methods of the abilities are called as the kinds are; that a host has it was checked when the run was planned.
    getattr(hands, act.fault.kind)(act)
