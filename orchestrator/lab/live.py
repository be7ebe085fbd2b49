"""A lab that is up, and all that can be done to it: power, links, processors, sensors.

For tests, and for faults of an experiment::

    lab = LiveLab.named("lab")
    lab.set_link("pi-1", LinkShape(rate_bps=1e6, delay_s=0.05))
    lab.cut("pi-1"); lab.restore("pi-1")
    lab.power_cut("pi-2", off_s=3.0)
    lab.script_sensors("pi-3", temperature_c=86.0)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.lab.control import ask
from orchestrator.lab.shaping import LinkShape
from orchestrator.lab.spec import Lab, LabHost, labs, load_lab


@dataclass(frozen=True, slots=True)
class LiveLab:
    """Speaks to a lab's keeper. Every method but the first two raises what `orchestrator.lab.control.ask` raises.

    Attributes:
        lab: its description.
    """

    lab: Lab

    @classmethod
    def named(cls, name: str) -> LiveLab:
        """The lab of that name.

        Raises:
            BadInput: there is none.
        """
        return cls(load_lab(name))

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of its devices."""
        return tuple(host.name for host in self.lab.hosts if host.role == "device")

    def status(self) -> dict[str, Any]:
        """How each host is: ``{"hosts": {name: {state, boots, problem, cpu_cores, link, sensors}}}``."""
        found: dict[str, Any] = self._ask("status")
        return found

    def set_link(self, host: str, shape: LinkShape) -> None:
        """Make a device's link another one, both ways, at once."""
        self._ask("link", host=host, shape=shape.to_plain())

    def reset_link(self, host: str) -> None:
        """Make a device's link what `lab up` made it, and carry frames."""
        self.set_link(host, self.lab.host(host).link)
        self.restore(host)

    def cut(self, host: str) -> None:
        """Lose all frames of a host, both ways, until `restore`; a device is not told, as out of reach of Wi-Fi."""
        self._ask("cut", host=host)

    def restore(self, host: str) -> None:
        """Carry a host's frames again."""
        self._ask("restore", host=host)

    def boot(self, host: str) -> None:
        """Switch a host on; harmless when it is."""
        self._ask("boot", host=host)

    def reboot(self, host: str) -> None:
        """Have a host's systemd reboot it, in order; returns when it has been told."""
        self._ask("reboot", host=host)

    def power_off(self, host: str) -> None:
        """Have a host's systemd switch it off, in order; returns when it has been told."""
        self._ask("power_off", host=host)

    def power_cut(self, host: str, off_s: float = 0.0) -> None:
        """Take a host's power away, silently for everyone else, and give it back after so long.

        What the host had written stays, synced or not: the machine's page cache does not lose power. So a test with
        this says nothing about what a true power cut leaves on an SD card.
        """
        self._ask("power_cut", host=host, off_s=off_s)

    def set_cpu(self, host: str, cores: float | None) -> None:
        """Give a host so many of the machine's cores, as a quota; None = all of them."""
        self._ask("cpu", host=host, cores=cores)

    def script_sensors(self, host: str, **changes: float | None) -> dict[str, Any]:
        """Override what a host's sensors show; None gives a value back to its model.

        Args:
            host: its name.
            changes: fields of `orchestrator.lab.sensor_model.Script`.

        Returns:
            As `sensors`.
        """
        found: dict[str, Any] = self._ask("script", host=host, changes=changes)
        return found

    def sensors(self, host: str) -> dict[str, Any]:
        """What a host's sensors show now, and ``energy_j``, what its scripted meter has truly given since `lab up`.

        ``t_s`` is the instant, on CLOCK_MONOTONIC, which hosts share.
        """
        found: dict[str, Any] = self._ask("energy", host=host)
        return found

    def stop(self) -> None:
        """Have everything switched off, and the keeper end."""
        self._ask("stop")

    def _ask(self, do: str, **arguments: Any) -> Any:
        return ask(self.lab.control, do, **arguments)


def find_lab_host(address: str) -> tuple[LiveLab, LabHost] | None:
    """The lab and its host that have an address; None when no lab of this machine has."""
    for lab in labs():
        for host in lab.hosts:
            if host.address == address:
                return LiveLab(lab), host
    return None
