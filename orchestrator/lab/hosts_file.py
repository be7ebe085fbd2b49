"""The hosts file that `lab up` writes, and the host keys that it pins beside it. Removed by `lab down`."""

from __future__ import annotations

import os
from pathlib import Path

from edgebed.errors import BadInput, Problem
from orchestrator.lab.keys import KIND, KeyPair
from orchestrator.lab.spec import USER, Lab, LabHost
from orchestrator.remote.host_keys import HostKey, KnownHosts

DEFAULT_HOSTS_FILE = Path("inventory/hosts/lab.yaml")
_MARK = "# Written by `edgebed lab up`, removed by `edgebed lab down`; not to be edited. Lab: "


def check_hosts_file(path: Path, name: str) -> None:
    """Check that a lab may write its hosts file there.

    Raises:
        BadInput: there is a file that is not this lab's, or no folder.
    """
    if not path.parent.is_dir():
        raise BadInput(Problem(f"its folder {path.parent} is not there; make it, or choose --hosts", file=str(path)))
    if not path.exists():
        return
    owner = written_by(path)
    if owner is None:
        message = "is there and was not written by `edgebed lab up`; move it away, or choose another with --hosts"
        raise BadInput(Problem(message, file=str(path)))
    if owner != name:
        message = (
            f"is the hosts file of the lab {owner}; choose another with --hosts, or: edgebed lab down --name {owner}"
        )
        raise BadInput(Problem(message, file=str(path)))


def written_by(path: Path) -> str | None:
    """The lab that wrote a hosts file; None when none did, or there is no file."""
    try:
        first = path.read_text().partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return None
    return first.removeprefix(_MARK).strip() if first.startswith(_MARK) else None


def write_hosts_file(lab: Lab, keys: dict[str, KeyPair]) -> None:
    """Write the hosts file and pin the hosts' keys beside it.

    Args:
        lab: whose.
        keys: of the hosts, by name.
    """
    path = Path(lab.hosts_file)
    known_hosts = KnownHosts.beside(path)
    known_hosts.pin({host.address: HostKey(KIND, keys[host.name].blob) for host in lab.hosts})
    path.write_text(hosts_text(lab))
    if lab.owner:
        for each in (path, known_hosts.path):
            os.chown(each, lab.owner, -1)


def hosts_text(lab: Lab) -> str:
    """The content of the hosts file."""
    servers = [host for host in lab.hosts if host.role == "edge_server"]
    devices = [host for host in lab.hosts if host.role == "device"]
    lines = [
        f"{_MARK}{lab.name}",
        "# An Ansible inventory, as for real hosts; docs/experiments.md explains the variables. The hosts are virtual:",
        "# their CPU is this machine's, `edgebed_slowdown` lets work take longer (such rows are `emulated`), and their",
        "# sensors are scripted: power follows the board's published model.",
        "all:",
        "  vars:",
        f"    ansible_user: {USER}",
        f"    ansible_ssh_private_key_file: {lab.key_file}",
        "  children:",
        "    edge_servers:",
        "      hosts:",
        *(_host_line(host) for host in servers),
        "    devices:",
        "      vars:",
        f"        edgebed_meter: {lab.meter}",
        "      hosts:",
        *(_host_line(host) for host in devices),
    ]
    return "\n".join(lines) + "\n"


def _host_line(host: LabHost) -> str:
    values = {"ansible_host": host.address, "edgebed_board": host.board["name"]}
    text = ", ".join(f"{key}: {value}" for key, value in values.items())
    slowdown = "" if host.slowdown == 1 else f", edgebed_slowdown: {host.slowdown:g}"
    return f"        {host.name}: {{ {text}{slowdown} }}"


def remove_hosts_file(lab: Lab) -> None:
    """Remove the hosts file, if it is still this lab's, and the keys pinned for its hosts."""
    path = Path(lab.hosts_file)
    if written_by(path) == lab.name:
        path.unlink()
    _unpin(KnownHosts.beside(path).path, {host.address for host in lab.hosts})


def _unpin(path: Path, addresses: set[str]) -> None:
    """Take out the lines that are about nothing but these hosts; a file that says nothing more goes too."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return
    kept = [line for line in lines if line.split(" ", 1)[0] not in addresses]
    if not any(line.strip() for line in kept):
        path.unlink()
    elif kept != lines:
        temporary = path.with_name(f".{path.name}.lab")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        os.chown(temporary, path.stat().st_uid, path.stat().st_gid)
        temporary.replace(path)
