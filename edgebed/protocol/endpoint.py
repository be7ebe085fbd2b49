"""Where a program listens, kept in a file: found by whoever starts it, and kept by itself over restarts."""

from __future__ import annotations

import re
from pathlib import Path

_TCP = re.compile(r"tcp://(?P<host>[^:]+|\[[^\]]+\]):(?P<port>\d+)\Z")


def is_ipv6(endpoint: str) -> bool:
    """Is it an address of IPv6, as in ``tcp://[2001:db8::7]:5570``? ZeroMQ uses these only where it is told to."""
    return endpoint.startswith("tcp://[")


def remembered_bind(bind: str, endpoint_file: Path) -> str:
    """Where to listen: ``bind``, but with the port of an earlier start where ``bind`` leaves it open (port 0).

    Peers know the old endpoint, so a program that was restarted must come back to it.
    """
    wanted = _TCP.match(bind)
    if wanted is None or int(wanted["port"]) != 0:
        return bind
    try:
        earlier = _TCP.match(endpoint_file.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return bind
    return f"tcp://{wanted['host']}:{earlier['port']}" if earlier else bind


def write_endpoint(endpoint_file: Path, endpoint: str) -> None:
    """Write where the program listens, all at once."""
    temporary = endpoint_file.with_name(endpoint_file.name + ".new")
    temporary.write_text(endpoint + "\n")
    temporary.replace(endpoint_file)
