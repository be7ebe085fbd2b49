"""Faults of virtual hosts: their link is cut and shaped, and their board throttled, from the machine that has the lab.

What undoes that, and its timer, are on this machine then: a host whose link is cut could not undo it. The timer runs
`orchestrator.faults.lab_undo`.
"""

from __future__ import annotations

import posixpath
import shlex
import sys
from dataclasses import dataclass, replace

from edgebed.errors import WorkFailed
from orchestrator.faults.hands import NOBODY, Hands, LocalHands, OwnHands, SshHands
from orchestrator.faults.lab_undo import COOL, RESTORE, UNSHAPE
from orchestrator.faults.schedule import Act
from orchestrator.inventory import Host
from orchestrator.lab.live import LiveLab, find_lab_host
from orchestrator.lab.sensor_model import THROTTLED
from orchestrator.lab.spec import LabHost
from orchestrator.provision.layout import STATE_ROOT
from orchestrator.remote.local import LocalRemote


@dataclass(frozen=True, slots=True)
class LabHands(OwnHands):
    """A virtual host: it has its own programs, disk, power and link; the clock is that of the machine."""

    def prepare(self) -> None:
        """Place the script, here too.

        Raises:
            RemoteError: it could not be placed.
        """
        OwnHands.prepare(self)
        self._here().prepare()

    def why_not(self, kind: str) -> str:
        """Why this host cannot do a kind of fault; what the lab does, it can.

        Raises:
            RemoteError: the host was lost.
        """
        return "" if kind in ("cut_link", "slow_link", "throttle") else OwnHands.why_not(self, kind)

    def lift(self, act_id: str, by: str) -> str | None:
        """End a fault now, unless it has ended; what was done from here needs no host that answers.

        Raises:
            RemoteError: the host was lost, or could not lift it.
        """
        found = self._here().lift(act_id, by)
        return OwnHands.lift(self, act_id, by) if found == NOBODY else found

    def lift_all(self, by: str) -> dict[str, str]:
        """End whatever of this run has not ended.

        Raises:
            RemoteError: the host was lost, or could not lift one.
        """
        here = self._here()
        lifted = here.lift_all(by)
        parent = shlex.quote(posixpath.dirname(here.folder))
        command = f"rm -rf {shlex.quote(here.folder)}; rmdir {parent} 2>/dev/null || :"
        here.remote.execute(command, idempotent=True)
        return lifted | OwnHands.lift_all(self, by)

    def cut_link(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanCutLink`; every frame is lost, the orchestrator's too."""
        live, host = self._found()
        self._write_undo(act, RESTORE)
        live.cut(host.name)

    def throttle(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanThrottle`; its firmware says so, as that of a hot board does."""
        live, host = self._found()
        self._write_undo(act, COOL)
        frequency_hz = act.fault.parameters["fraction"] * host.board["nominal_hz"]
        live.script_sensors(host.name, frequency_hz=frequency_hz, throttle_word=THROTTLED)

    def _write_undo(self, act: Act, what: str) -> None:
        """Write down on this machine how it is undone, and start the timer."""
        live, host = self._found()
        words = ("begin", act.id, f"{act.fault.for_s:g}", "lab", sys.executable, live.lab.name, host.name, what)
        here = self._here()
        here.remote.execute(here._command(*words)).checked("the undo could not be written")

    def _found(self) -> tuple[LiveLab, LabHost]:
        found = find_lab_host(self.host.address)
        if found is None:
            raise WorkFailed(f"{self.host.name}: no lab of this machine has a host at {self.host.address} any more")
        return found

    def _here(self) -> Hands:
        """What lifts from this machine."""
        remote = LocalRemote(f"{self.host.name}, from here")
        remote.connect()
        state = posixpath.basename(posixpath.dirname(self.folder))
        path = f"{STATE_ROOT}/lab-faults/{shlex.quote(f'{state}-{self.host.name}')}"
        done = remote.execute(f"umask 077; mkdir -p {path} && cd {path} && pwd -P", idempotent=True)
        return Hands(self.host, remote, done.checked("a folder for undoing faults cannot be made").text, self.pid_of)


@dataclass(frozen=True, slots=True)
class LabDeviceHands(LabHands):
    """A virtual device: its link has a shape."""

    def slow_link(self, act: Act) -> None:
        """See `orchestrator.faults.abilities.CanSlowLink`; both ways."""
        live, host = self._found()
        told, shape = act.fault.parameters, host.link
        shape = replace(
            shape,
            rate_bps=told.get("rate_bps", shape.rate_bps),
            delay_s=shape.delay_s + told.get("delay_s", 0.0),
            loss=told.get("loss", shape.loss),
        )
        self._write_undo(act, UNSHAPE)
        live.set_link(host.name, shape)


def hands_of(host: Host) -> type[Hands]:
    """Who does faults to a host; the abilities of the class are those of the host."""
    if host.connection == "local":
        return LocalHands
    if find_lab_host(host.address) is None:
        return SshHands
    return LabDeviceHands if host.role == "device" else LabHands
