"""Is Wi-Fi power saving on for the interface that carries a host's traffic? It adds up to seconds to a round trip.

The kernel shows wireless interfaces in ``/proc/net/wireless`` and sysfs, routes in ``/proc/net/route``; the power save
state only the program ``iw`` tells, so it is asked seldom, and never waited for.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from edgebed.clock import Clock
from edgebed.metering.kernel_files import read_bytes
from edgebed.metering.polled_program import PolledProgram

PERIOD_S = 10.0
"""How often ``iw`` is asked."""

_POWER_SAVE = re.compile(r"^\s*Power save:\s*(on|off)\s*$", re.MULTILINE | re.IGNORECASE)


def parse_power_save(text: str) -> bool | None:
    """The answer of ``iw dev INTERFACE get power_save``; None when it is none."""
    match = _POWER_SAVE.search(text)
    return match[1].lower() == "on" if match else None


def wireless_interfaces(sysfs_root: Path, proc_root: Path) -> set[str]:
    """Names of this host's wireless interfaces."""
    text = (read_bytes(proc_root / "net/wireless") or b"").decode("ascii", "replace")
    found = {line.partition(":")[0].strip() for line in text.splitlines()[2:] if ":" in line}
    for mark in ("wireless", "phy80211"):
        found |= {each.parent.name for each in (sysfs_root / "class/net").glob(f"*/{mark}")}
    return found


def carrying_interface(routes: str, peers: Iterable[str]) -> str | None:
    """The interface that traffic to the peers takes; that of the default route when no peer has a route of its own.

    Args:
        routes: text of ``/proc/net/route``.
        peers: IPv4 addresses; anything else is passed over.
    """
    found = [route for line in routes.splitlines()[1:] if (route := _route(line)) is not None]
    addresses = [ipaddress.IPv4Address(peer) for peer in peers if _is_ipv4(peer)]
    for address in addresses or [ipaddress.IPv4Address("0.0.0.0")]:  # noqa: S104  (the default route's destination)
        matching = [route for route in found if address in route[0]]
        if matching:
            return max(matching, key=lambda route: (route[0].prefixlen, -route[1]))[2]
    return None


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _route(line: str) -> tuple[ipaddress.IPv4Network, int, str] | None:
    """Network, metric and interface of a line; the kernel writes addresses as little-endian hexadecimal."""
    fields = line.split()
    try:
        name, destination, metric, mask = fields[0], fields[1], int(fields[6]), fields[7]
        address, netmask = (ipaddress.IPv4Address(bytes.fromhex(each)[::-1]) for each in (destination, mask))
        return ipaddress.IPv4Network(f"{address}/{netmask}"), metric, name
    except (IndexError, ValueError):
        return None


class WifiPowerSave:
    """Follows the power save state of the interface that carries the traffic.

    Args:
        peers: IPv4 addresses that the host talks to; the default route counts where none is known.
    """

    def __init__(self, clock: Clock, sysfs_root: Path, proc_root: Path, peers: Iterable[str] = ()) -> None:
        self._sysfs_root, self._proc_root = sysfs_root, proc_root
        self._peers = tuple(peers)
        self._clock = clock
        self._program = shutil.which("iw") or shutil.which("iw", path="/usr/sbin:/sbin")
        self._poll: PolledProgram | None = None

    def read(self) -> bool | None:
        """Is it on? None where the traffic takes no Wi-Fi, or nobody can tell."""
        interface = self._interface()
        if interface is None or self._program is None:
            return None
        command = (self._program, "dev", interface, "get", "power_save")
        if self._poll is None or self._poll.command != command:
            self.close()
            self._poll = PolledProgram(self._clock, command, PERIOD_S)
        self._poll.poll()
        return parse_power_save(self._poll.answer or "")

    def _interface(self) -> str | None:
        wireless = wireless_interfaces(self._sysfs_root, self._proc_root)
        if not wireless:
            return None
        routes = (read_bytes(self._proc_root / "net/route") or b"").decode("ascii", "replace")
        interface = carrying_interface(routes, self._peers)
        return interface if interface in wireless else None

    def close(self) -> None:
        """End ``iw`` if it is being asked."""
        if self._poll is not None:
            self._poll.close()
