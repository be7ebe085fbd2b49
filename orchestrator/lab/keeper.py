"""The program that keeps a lab up: boots its hosts and boots them again, moves their sensors, answers requests.

One a lab, started by `lab up`::

    python -m orchestrator.lab.keeper NAME

All that runs in the lab is its child and dies with it, so that nothing is left even when it is killed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from edgebed.errors import EdgebedError
from orchestrator.lab.cgroups import hierarchies
from orchestrator.lab.control import ControlSocket
from orchestrator.lab.host_keeper import OFF, HostKeeper
from orchestrator.lab.spec import Lab, load_lab

SENSOR_PERIOD_S = 0.1
SLOW_TURNS = 5


class Keeper:
    """Keeps a lab.

    Args:
        lab: its description.
    """

    def __init__(self, lab: Lab) -> None:
        found = hierarchies()
        self._hosts = {host.name: HostKeeper(lab, host, found) for host in lab.hosts}
        self._lab = lab
        self._is_over = False
        self._turn = 0

    def actions(self) -> dict[str, Any]:
        """What can be asked of it; `orchestrator.lab.live.LiveLab` asks."""
        return {
            "status": self.status,
            "stop": self.stop,
            "boot": lambda host: self._host(host).boot(),
            "reboot": lambda host: self._host(host).ask_init("reboot"),
            "power_off": lambda host: self._host(host).ask_init("power_off"),
            "power_cut": lambda host, off_s: self._host(host).power_cut(off_s),
            "link": lambda host, shape: self._host(host).set_link(shape),
            "cut": lambda host: self._host(host).set_cut(is_cut=True),
            "restore": lambda host: self._host(host).set_cut(is_cut=False),
            "cpu": lambda host, cores: self._host(host).set_cpu(cores),
            "script": lambda host, changes: self._host(host).script_sensors(changes),
            "energy": lambda host: self._host(host).energy(),
        }

    def _host(self, name: str) -> HostKeeper:
        return self._hosts[self._lab.host(name).name]

    def status(self) -> dict[str, Any]:
        """How every host is."""
        return {"hosts": {name: host.status() for name, host in self._hosts.items()}}

    def stop(self) -> None:
        """End after this request."""
        self._is_over = True

    def start(self) -> None:
        """Lay all links, boot all hosts."""
        for host in self._hosts.values():
            host.lay_link()
        for host in self._hosts.values():
            host.boot()

    def run(self, control: ControlSocket, wake_fd: int) -> None:
        """Keep the lab until it is asked to stop.

        Args:
            control: where requests come in.
            wake_fd: becomes readable with every signal, a child's end among them.
        """
        due_s = time.monotonic()
        while not self._is_over:
            wait_s = max(0.0, due_s - time.monotonic())
            readable, _, _ = select.select([control.fileno(), wake_fd], [], [], wait_s)
            if wake_fd in readable:
                with suppress(BlockingIOError):
                    os.read(wake_fd, 4096)
            if control.fileno() in readable:
                control.serve_one()
            self._look()
            if time.monotonic() >= due_s:
                self._show_sensors()
                # Turns that were missed (a suspended machine) are not made up for.
                due_s = max(due_s + SENSOR_PERIOD_S, time.monotonic())

    def _look(self) -> None:
        for name, host in self._hosts.items():
            before = (host.state, host.boots)
            try:
                host.look()
            except (EdgebedError, OSError) as error:
                host.problem = str(error)
            if (host.state, host.boots) != before:
                _log(f"{name} is {host.state}, boot {host.boots} {host.problem}")

    def _show_sensors(self) -> None:
        self._turn += 1
        for host in self._hosts.values():
            try:
                host.show(is_slow_turn=self._turn % SLOW_TURNS == 0)
            except (EdgebedError, OSError) as error:
                if host.state != OFF:
                    host.problem = f"sensors: {error}"

    def close(self) -> None:
        """Switch everything off."""
        for host in self._hosts.values():
            try:
                host.close()
            except (EdgebedError, OSError) as error:
                _log(str(error))


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Keep the lab of that name until it is asked to stop."""
    lab = load_lab(arguments[0])
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = Keeper(lab)
    signal.signal(signal.SIGTERM, lambda number, frame: keeper.stop())
    try:
        keeper.start()
        # Only now: whoever can ask finds a lab that is whole.
        control = ControlSocket(lab.control, keeper.actions(), lab.owner)
        _log(f"the lab {lab.name} is up, {len(lab.hosts)} hosts")
        keeper.run(control, read_fd)
        control.close()
    finally:
        keeper.close()
    _log("ended in order")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
