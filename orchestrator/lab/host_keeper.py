"""One virtual host as its keeper sees it: its link, its boots, its sensors. Used by the keeper's one thread."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput, EdgebedError, WorkFailed
from edgebed.metering.board import board_from_dict
from orchestrator.lab import network
from orchestrator.lab.boot import CANNOT_BOOT, REBOOTED, SWITCHED_OFF, Boot
from orchestrator.lab.cgroups import Hierarchy, HostCgroup
from orchestrator.lab.control import ask
from orchestrator.lab.netem import Netem
from orchestrator.lab.sensor_files import SensorFiles
from orchestrator.lab.sensor_model import BoardFacts, SensorModel
from orchestrator.lab.shaping import LinkShape, shape_from_plain
from orchestrator.lab.spec import Lab, LabHost

START_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 10.0
_SIGNAL_REBOOT = signal.SIGRTMIN + 5  # systemd(1): to process 1
_SIGNAL_POWER_OFF = signal.SIGRTMIN + 4

ON, OFF, FAILED = "on", "off", "failed"


class HostKeeper:
    """Keeps one host.

    Args:
        lab: that it is part of.
        host: which one.
        found: the machine's cgroup hierarchies.

    Attributes:
        state: ``on``, ``off`` or ``failed``.
        boots: how often it was started.
        problem: why it failed, or is off without having been asked; empty when all is well.
    """

    def __init__(self, lab: Lab, host: LabHost, found: list[Hierarchy]) -> None:
        self.host = host
        self.state = OFF
        self.boots = 0
        self.problem = ""
        self._lab = lab
        self._hierarchies = found
        self._cgroup = HostCgroup(lab.network_of(host), found)
        self._cpu_cores = host.cpu_cores
        self._shape = host.link
        self._is_cut = False
        self._boot: subprocess.Popen[bytes] | None = None
        self._wire: subprocess.Popen[bytes] | None = None
        self._boot_at_s: float | None = None
        self._booted_s = time.monotonic()
        self._quota_fraction = 1.0
        self._folder = lab.folder_of(host)
        self._folder.mkdir(parents=True, exist_ok=True)
        board = board_from_dict(host.board)
        cores = os.cpu_count() or 1
        is_arm = host.architecture in ("arm64", "armhf")
        self._files = SensorFiles(self._folder, board, cores, host.machine_id[:16], is_arm=is_arm)
        facts = BoardFacts(nominal_hz=board.nominal_hz, idle_w=board.idle_w, max_w=board.max_w)
        self._sensors = SensorModel(facts, cores, time.monotonic())

    # -- the link -----------------------------------------------------------------------------------------------------

    @property
    def _is_wired(self) -> bool:
        return self._lab.shaper == "wire" and self.host.role == "device"

    def lay_link(self) -> None:
        """Make the link, both ends in the lab's network."""
        if self._is_wired:
            self._start_wire()
        else:
            network.make_cable(self._lab, self.host)
        network.plug_in(self._lab, self.host)

    def _start_wire(self) -> None:
        program = [sys.executable, "-m", "orchestrator.lab.wire", self._lab.network, self.host.near, self.host.far]
        told = [str(self._wire_control), json.dumps(self._shape.to_plain()), str(self.host.index)]
        self._wire = subprocess.Popen([*program, *told], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/")
        assert self._wire.stdout is not None
        if not select.select([self._wire.stdout], [], [], START_TIMEOUT_S)[0] or not self._wire.stdout.readline():
            raise WorkFailed(f"the wire of {self.host.name} did not start; see {self._lab.state / 'keeper.log'}")

    @property
    def _wire_control(self) -> Path:
        return self._folder / "wire.sock"

    def _ask_wire(self, do: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = ask(self._wire_control, do, **arguments)
        return answer

    def set_link(self, shape: dict[str, float]) -> None:
        """Make the link another one."""
        wanted = shape_from_plain(shape)
        if self._is_wired:
            self._ask_wire("shape", shape=wanted.to_plain())
        elif self._lab.shaper == "netem":
            self._netem.shape(wanted)
        elif wanted != self._shape:
            raise BadInput(f"the link of {self.host.name} is a plain cable, which can only be cut, not shaped")
        self._shape = wanted

    @property
    def _netem(self) -> Netem:
        inner = self._lab.network_of(self.host) if self.state == ON else None
        return Netem(self._lab.network, self.host.near, inner, "eth0")

    def set_cut(self, *, is_cut: bool) -> None:
        """Lose all frames, or carry them again."""
        self._carry(is_carrying=not is_cut)
        self._is_cut = is_cut

    def _carry(self, *, is_carrying: bool) -> None:
        if self._is_wired:
            self._ask_wire("restore" if is_carrying else "cut")
        else:
            network.set_plugged(self._lab, self.host, is_plugged=is_carrying)

    # -- power --------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on; harmless when it is."""
        self._boot_at_s = None
        if self._boot is not None:
            return
        self._cgroup.make()
        self._apply_quota()
        network.disconnect_host(self._lab, self.host)  # of a boot that broke off
        network.connect_host(self._lab, self.host)
        if self._lab.shaper == "netem":
            Netem(self._lab.network, self.host.near, self._lab.network_of(self.host), "eth0").shape(self._shape)
        self._sensors.forget_past()
        self._booted_s = time.monotonic()
        self.show(is_slow_turn=True)
        description = self._folder / "boot.json"
        self._description().save(description)
        program = [sys.executable, "-m", "orchestrator.lab.boot", str(description)]
        self._boot = subprocess.Popen(program, stdin=subprocess.DEVNULL, cwd="/")
        self.state, self.problem = ON, ""
        self.boots += 1

    def _description(self) -> Boot:
        disk = self._lab.disk_of(self.host)
        return Boot(
            hostname=self.host.name,
            network=self._lab.network_of(self.host),
            lower=self.host.root,
            disk=str(disk),
            sys=str(self._folder / "sys"),
            over=self._files.over,
            cgroups=[str(folder) for folder in self._cgroup.folders],
            hierarchies=[(_name_of(each), each.options) for each in self._hierarchies],
            console=str(self._folder / "console.log"),
        )

    def power_cut(self, off_s: float) -> None:
        """Cut its power, and give it back after ``off_s``. Nobody in the network is told that it goes."""
        if not 0 <= off_s <= 86400:
            raise BadInput(f"off_s is {off_s!r}; allowed is 0 to 86400 seconds")
        if self._boot is not None:
            self._carry(is_carrying=False)
            self._kill()
            self._ended(SWITCHED_OFF)
            if not self._is_cut:
                self._carry(is_carrying=True)
        self._boot_at_s = time.monotonic() + off_s

    def ask_init(self, do: str) -> None:
        """Have its systemd reboot it or switch it off, in order."""
        if self._boot is None:
            raise BadInput(f"{self.host.name} is {self.state}; switch it on first")
        number = {"reboot": _SIGNAL_REBOOT, "power_off": _SIGNAL_POWER_OFF}[do]
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        os.kill(int(children[0]), number)

    def _kill(self) -> None:
        assert self._boot is not None
        self._boot.kill()
        self._boot.wait(KILL_TIMEOUT_S)

    def look(self) -> None:
        """Notice that it went down, and boot it again if that was a reboot or if it is time."""
        if self._boot is not None and (status := self._boot.poll()) is not None:
            self._ended(status)
            if status == REBOOTED:
                self.boot()
        if self._boot_at_s is not None and time.monotonic() >= self._boot_at_s:
            self.boot()
        if self._wire is not None and self._wire.poll() is not None:
            self.problem = f"its link's program ended with status {self._wire.returncode}"

    @property
    def boot_at_s(self) -> float | None:
        """When it is to be switched on."""
        return self._boot_at_s

    def _ended(self, status: int) -> None:
        """Take its namespace and its groups away: a host that is booted again remembers nothing but its disk."""
        self._boot = None
        self.state = OFF
        if status == CANNOT_BOOT:
            self.state, self.problem = FAILED, f"it could not be booted; see {self._folder / 'console.log'}"
        elif status not in (REBOOTED, SWITCHED_OFF):
            self.problem = f"its process 1 ended (status {status}); see {self._folder / 'console.log'}"
        self._cgroup.remove()
        network.disconnect_host(self._lab, self.host)

    # -- processor and sensors ----------------------------------------------------------------------------------------

    def set_cpu(self, cores: float | None) -> None:
        """Give it so many of the machine's cores; None = all."""
        if cores is not None and not 0 < cores <= 1024:
            raise BadInput(f"cores is {cores!r}; allowed is above 0 to 1024, or none for all")
        self._cpu_cores = cores
        self._apply_quota()

    def _apply_quota(self) -> None:
        fraction = self._quota_fraction
        if fraction < 1:
            self._cgroup.limit_cpu((self._cpu_cores or float(os.cpu_count() or 1)) * fraction)
        else:
            self._cgroup.limit_cpu(self._cpu_cores)

    def script_sensors(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Override what sensors show; a clock that is capped slows the host."""
        self._sensors.change(changes)
        self.show(is_slow_turn=True)
        return self.energy()

    def energy(self) -> dict[str, Any]:
        """What the scripted meter has truly given since the lab is up, and what is shown now."""
        now_s = time.monotonic()
        sensors = self._sensors
        return {
            "t_s": now_s,
            "energy_j": sensors.energy_at(now_s),
            "power_w": sensors.power_w,
            "utilisation": sensors.utilisation,
            "temperature_c": sensors.temperature_c,
            "frequency_hz": sensors.frequency_hz,
            "throttle_word": sensors.throttle_word,
            "battery_fraction": sensors.battery_fraction,
            "script": sensors.script.to_plain(),
        }

    def show(self, *, is_slow_turn: bool) -> None:
        """Bring the sensors' files up to now."""
        now_s = time.monotonic()
        cpu_s = self._cgroup.cpu_s()
        self._sensors.step(now_s, cpu_s)
        self._files.show(self._sensors, cpu_s, now_s - self._booted_s)
        if not is_slow_turn:
            return
        self._files.show_slow(self._sensors, self._cgroup.memory_bytes())
        fraction = self._sensors.highest_hz / self._sensors.board.nominal_hz
        if fraction != self._quota_fraction and self._boot is not None:
            self._quota_fraction = fraction
            self._apply_quota()

    # -- the end ------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """For ``lab status``."""
        link: dict[str, Any] = {"shape": self._shape.to_plain(), "cut": self._is_cut, "by": "cable"}
        if self._is_wired:
            try:
                link |= self._ask_wire("status") | {"by": "wire"}
            except EdgebedError as error:
                link |= {"by": "wire", "problem": str(error)}
        elif self._lab.shaper == "netem" and self._shape != LinkShape():
            link["by"] = "netem"
        plain = {"state": self.state, "boots": self.boots, "problem": self.problem, "cpu_cores": self._cpu_cores}
        return {**plain, "link": link, "sensors": self.energy()}

    def close(self) -> None:
        """Switch it off at once, and take its link away."""
        if self._boot is not None:
            self._kill()
        self._cgroup.remove()
        if self._wire is not None:
            self._wire.kill()
            self._wire.wait(KILL_TIMEOUT_S)
        self._files.close()


def _name_of(hierarchy: Hierarchy) -> str:
    """The folder's name in the host's /sys/fs/cgroup; empty for version 2 alone, which is mounted on it."""
    return "" if hierarchy.folder.name == "cgroup" else hierarchy.folder.name
