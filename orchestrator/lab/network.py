r"""The lab's network: one namespace with a switch in it, one namespace a host, and a leg for the machine.

::

    machine --edgebedN==uplink--[ switch ]--edgebed-n1 ~ link ~ eth0-- host 1
                                          \-edgebed-n2 ~ link ~ eth0-- host 2

The switch has a namespace of its own, so that the machine's firewall does not see what hosts say to each other, and so
that all of it goes with the namespace. No route leads out: hosts have no internet, like a cluster behind an access
point. A host's namespace is made anew with each boot: a booted host knows nothing of the connections it had.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from edgebed.errors import WorkFailed
from orchestrator.lab.kernel import NAMED_NETWORKS
from orchestrator.lab.programs import call
from orchestrator.lab.spec import Lab, LabHost

SUBNETS = range(256)
NETWORK_BITS = 24
CONGESTION_CONTROL = "cubic"
"""As on Raspberry Pi OS; the machine's default may be BBR."""

_SWITCH = "switch"
_UPLINK = "uplink"


def free_subnet(taken: Iterable[int]) -> int:
    """The first N for which nothing on this machine routes to 10.213.N.0/24.

    Args:
        taken: those of other labs.

    Raises:
        WorkFailed: there is none.
    """
    routed = _routed_networks(call(["ip", "-4", "route", "show", "table", "all"]))
    for subnet in SUBNETS:
        network = ipaddress.ip_network(f"10.213.{subnet}.0/{NETWORK_BITS}")
        if subnet not in taken and not any(network.overlaps(each) for each in routed):
            return subnet
    raise WorkFailed("all of 10.213.0.0/16 is in use on this machine; take a lab or a route away: `edgebed lab status`")


def _routed_networks(routes: str) -> list[ipaddress.IPv4Network]:
    # "default" routes are in the way of nothing: a more exact route wins.
    found = re.findall(r"^(?:\w+ )?(\d+\.\d+\.\d+\.\d+(?:/\d+)?) ", routes, re.MULTILINE)
    return [ipaddress.IPv4Network(each, strict=False) for each in found if not each.endswith("/0")]


def make_network(lab: Lab) -> None:
    """Make the switch, its namespace, and the machine's leg."""
    network = lab.network
    call(["ip", "netns", "add", network])
    _batch(
        network,
        "link set lo up",
        # A name of a bridge may be anything here: nobody else lives in this namespace.
        f"link add {_SWITCH} type bridge stp_state 0 forward_delay 0",
        f"link set {_SWITCH} up",
    )
    call(["ip", "link", "add", lab.machine_interface, "type", "veth", "peer", "name", _UPLINK, "netns", network])
    _batch(network, f"link set {_UPLINK} master {_SWITCH} up")
    _batch(None, f"address add {lab.machine_address}/{NETWORK_BITS} dev {lab.machine_interface}")
    call(["ip", "link", "set", lab.machine_interface, "up"])
    # Replies, and what the machine sends, behave as a Pi's do.
    _prefer_cubic(None, lab, lab.machine_interface, lab.machine_address)


def _prefer_cubic(network: str | None, lab: Lab, interface: str, source: str) -> None:
    route = f"{lab.prefix}0/{NETWORK_BITS} dev {interface} proto kernel scope link src {source}"
    _batch(network, f"route replace {route} congctl {CONGESTION_CONTROL}")


def make_cable(lab: Lab, host: LabHost) -> None:
    """Make a host's link as a plain cable; with a wire, its program makes both ends instead."""
    _batch(lab.network, f"link add {host.near} type veth peer name {host.far}")


def plug_in(lab: Lab, host: LabHost) -> None:
    """Put the near end of a host's link into the switch."""
    _batch(lab.network, f"link set {host.near} master {_SWITCH} up")


def connect_host(lab: Lab, host: LabHost) -> None:
    """Make a host's network namespace, and the far end of its link the host's eth0."""
    network = lab.network_of(host)
    call(["ip", "netns", "add", network])
    _batch(lab.network, f"link set {host.far} netns {network}")
    _batch(
        network,
        "link set lo up",
        f"link set {host.far} name eth0 address {host.mac}",
        f"address add {host.address}/{NETWORK_BITS} broadcast + dev eth0",
        "link set eth0 up",
    )
    _prefer_cubic(network, lab, "eth0", host.address)


def disconnect_host(lab: Lab, host: LabHost) -> None:
    """Take a host's link back from it, and remove its namespace; harmless when it has none."""
    network = lab.network_of(host)
    if not (NAMED_NETWORKS / network).exists():
        return
    found = [name for name in interfaces(network) if name != "lo"]
    if found:  # root on the host may have given it another name
        name = "eth0" if "eth0" in found else found[0]
        back = f"link set {host.far} netns {lab.network}"
        _batch(network, f"link set {name} down", f"link set {name} name {host.far}", back)
    call(["ip", "netns", "delete", network])


def set_plugged(lab: Lab, host: LabHost, *, is_plugged: bool) -> None:
    """Pull a cable at the switch, or put it back."""
    _batch(lab.network, f"link set {host.near} {'up' if is_plugged else 'down'}")


def remove_network(lab: Lab) -> None:
    """Remove all of the lab's network that is there."""
    # Before the namespace, which would take its other end, and so it, away at some time after.
    if lab.machine_interface in interfaces():
        call(["ip", "link", "delete", lab.machine_interface])
    for path in sorted(NAMED_NETWORKS.glob(f"{lab.network}*")) if NAMED_NETWORKS.is_dir() else []:
        if path.name == lab.network or path.name.startswith(f"{lab.network}."):
            call(["ip", "netns", "delete", path.name])


def interfaces(network: str | None = None) -> list[str]:
    """Names of the interfaces in a namespace."""
    lines = call(["ip", *(() if network is None else ("-netns", network)), "-oneline", "link", "show"]).splitlines()
    return [line.split(": ")[1].partition("@")[0] for line in lines]


def _batch(network: str | None, *commands: str) -> None:
    where = () if network is None else ("-netns", network)
    call(["ip", *where, "-batch", "-"], stdin="".join(f"{command}\n" for command in commands))
