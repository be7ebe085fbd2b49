"""What a lab consists of, what everything in it is called, and where its files lie.

A lab's description is written before anything of it is made, so that whatever happens `lab down` knows what to undo.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgebed.errors import BadInput, WorkFailed
from orchestrator.lab.shaping import LinkShape, shape_from_plain

STATE_ROOT = Path("/run/edgebed-lab")
"""One folder a lab: description, sockets, logs, sensors. A tmpfs: sensors change ten times a second."""

DISKS_ROOT = Path("/var/lib/edgebed-lab")
"""One folder a lab: what its hosts write."""

DEFAULT_NAME = "lab"
USER = "pi"
MOST_DEVICES = 200
_DESCRIPTION = "lab.json"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")

Role = Literal["edge_server", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabHost:
    """One virtual host.

    Attributes:
        name: also its hostname.
        address: in the lab's own network.
        board: the fields of an `edgebed.metering.board.Board`; what its sensors pretend to be.
        link: between it and the lab's switch, each way.
        cpu_cores: quota of the machine's cores; None = all.
        slowdown: written to the hosts file as ``edgebed_slowdown``.
        root: the folder of the Debian root that it shares with others.
        architecture: as Debian names it.
        machine_id: 32 hexadecimal digits.
    """

    name: str
    role: Role
    index: int
    address: str
    board: dict[str, Any]
    link: LinkShape = field(default_factory=LinkShape)
    cpu_cores: float | None = None
    slowdown: float = 1.0
    root: str
    architecture: str
    machine_id: str

    @property
    def mac(self) -> str:
        """Hardware address of its eth0; locally administered."""
        octets = [int(each) for each in self.address.split(".")]
        return "02:ed:" + ":".join(f"{each:02x}" for each in octets)

    @property
    def near(self) -> str:
        """The end of its link at the switch, in the lab's network namespace."""
        return f"edgebed-n{self.index}"

    @property
    def far(self) -> str:
        """The other end while the host is off; eth0 of the host while it is on."""
        return f"edgebed-f{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A lab, as described; see `orchestrator.lab.live.LiveLab` for what can be done to one that is up.

    Attributes:
        subnet: the third number of its addresses, 10.213.SUBNET.0/24.
        hosts: the edge server first.
        owner: user id who may control it besides root; who called sudo.
        hosts_file: what `up` writes, absolute.
        meter: written to the hosts file as the devices' ``edgebed_meter``.
        shaper: what makes the devices' links: ``wire`` or ``netem``; the edge server's is a cable.
    """

    name: str
    subnet: int
    hosts: tuple[LabHost, ...]
    owner: int
    hosts_file: str
    meter: str
    shaper: str

    @property
    def state(self) -> Path:
        """Its folder for state."""
        return STATE_ROOT / self.name

    @property
    def disks(self) -> Path:
        """Its folder for what hosts write."""
        return DISKS_ROOT / self.name

    @property
    def control(self) -> Path:
        """The socket of its keeper."""
        return self.state / "control.sock"

    @property
    def key_file(self) -> Path:
        """The private key that opens all its hosts."""
        return self.state / "id_ed25519"

    @property
    def network(self) -> str:
        """The network namespace of its switch and links."""
        return f"edgebed-{self.name}"

    @property
    def machine_interface(self) -> str:
        """The machine's own leg in the lab's network."""
        return f"edgebed{self.subnet}"

    @property
    def prefix(self) -> str:
        """Its addresses up to the last number."""
        return f"10.213.{self.subnet}."

    @property
    def machine_address(self) -> str:
        """The machine's address in the lab's network."""
        return f"{self.prefix}1"

    def host(self, name: str) -> LabHost:
        """The host called ``name``.

        Raises:
            BadInput: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise BadInput(f"the lab {self.name} has no host {name!r}; it has {names}")

    def network_of(self, host: LabHost) -> str:
        """The host's network namespace; it is there while the host is on. Doubles as the name of its cgroups."""
        return f"{self.network}.{host.name}"

    def folder_of(self, host: LabHost) -> Path:
        """The host's folder for state: console, sensors, wire."""
        return self.state / "hosts" / host.name

    def disk_of(self, host: LabHost) -> Path:
        """The host's folder for its file system."""
        return self.disks / host.name

    def save(self) -> None:
        """Write the description into the state folder."""
        text = json.dumps(asdict(self), indent=1)
        temporary = self.state / f".{_DESCRIPTION}"
        temporary.write_text(text)
        temporary.replace(self.state / _DESCRIPTION)


def check_name(name: str) -> str:
    """The name, if a lab may be called so.

    Raises:
        BadInput: it may not.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"a lab cannot be called {name!r}; allowed are up to 30 small letters, digits and '-'")
    return name


def lab_names() -> list[str]:
    """The labs of this machine, whole or half-made."""
    if not STATE_ROOT.is_dir():
        return []
    return sorted(path.name for path in STATE_ROOT.iterdir() if path.is_dir())


def load_lab(name: str) -> Lab:
    """The description of a lab.

    Raises:
        BadInput: there is no lab of that name.
        WorkFailed: its description cannot be read.
    """
    path = STATE_ROOT / check_name(name) / _DESCRIPTION
    try:
        plain = json.loads(path.read_text())
        hosts = tuple(LabHost(**{**each, "link": shape_from_plain(each["link"])}) for each in plain["hosts"])
        return Lab(**{**plain, "hosts": hosts})
    except FileNotFoundError:
        there = ", ".join(lab_names()) or "none"
        raise BadInput(f"there is no lab called {name!r} here (labs: {there}); make it with `edgebed lab up`") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WorkFailed(f"{path} cannot be read ({error}); remove the lab: edgebed lab down --name {name}") from error


def labs() -> Iterator[Lab]:
    """The labs of this machine whose description can be read."""
    for name in lab_names():
        try:
            yield load_lab(name)
        except (BadInput, WorkFailed):
            continue
