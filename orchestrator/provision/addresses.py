"""Where the programs of a run that listen are found by the others.

A program listens at one address only. On a host behind SSH that is the address at which SSH has reached it, on this
machine loopback when all hosts are on it, and otherwise the address from which it has reached the others over SSH.
``edgebed_address`` says it where neither holds, as behind a jump host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address

from edgebed.errors import BadInput, Problem
from orchestrator.inventory import Host

LOOPBACK = "127.0.0.1"


def listening_addresses(
    hosts: Sequence[Host], servers: Sequence[Host], ssh_addresses: Mapping[str, tuple[str, str] | None]
) -> dict[str, str]:
    """The address of each host that others connect to.

    Args:
        hosts: all of the run.
        servers: those that something listens on.
        ssh_addresses: by host, how this machine and the host name themselves over SSH; None for a local one.

    Returns:
        Address by name of the server's host.

    Raises:
        BadInput: an address is one that others cannot use.
    """
    seen = [pair for host in hosts if (pair := ssh_addresses.get(host.name)) is not None]
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for server in servers:
        pair = ssh_addresses.get(server.name)
        own = pair[1] if pair is not None else seen[0][0] if seen else LOOPBACK
        found[server.name] = address = server.peer_address or own
        if problem := _problem(address, len(seen), len(hosts)):
            text = f"would listen at {address}, {problem}; set edgebed_address to one of its addresses that they reach"
            problems.append(Problem(text, key=server.name))
    if problems:
        raise BadInput(problems)
    return found


def endpoint(address: str, port: str | int) -> str:
    """As ZeroMQ writes it."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def split_endpoint(text: str) -> tuple[str, int]:
    """Address and port of what `endpoint` has written."""
    address, _, port = text.removeprefix("tcp://").rpartition(":")
    return address.strip("[]"), int(port)


def _problem(address: str, distant: int, hosts: int) -> str:
    """Why other hosts cannot connect to an address; empty when nothing is known against it."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.is_link_local:
        return "which is only known on one link"
    # Over a loopback SSH all hosts may well be this machine; a mixture cannot be.
    if parsed.is_loopback and 0 < distant < hosts:
        return "which the other hosts cannot reach"
    return ""
