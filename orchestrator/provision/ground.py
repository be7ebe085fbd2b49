"""A host of a run, reached: what is installed there, the lease on it, and the run's state folder."""

from __future__ import annotations

import posixpath
import shlex
from dataclasses import dataclass

from orchestrator.inventory import Host
from orchestrator.provision import lease
from orchestrator.provision.installation import Installation, read_installation
from orchestrator.provision.layout import STATE_ROOT, HostFolder
from orchestrator.provision.lease import Holder
from orchestrator.provision.supervision import SCRIPT, Supervision
from orchestrator.provision.systemd import supervision_for
from orchestrator.remote.base import Remote

# What a host says of itself, a line each; nothing here may fail.
_FACTS = """
system=$(uname -srm)
echo "kernel ${system% *}"
echo "machine ${system##* }"
echo "processors $(getconf _NPROCESSORS_ONLN 2>/dev/null)"
board() { tr -d '\\0' 2>/dev/null <"$1/model"; }
processor() { sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo; }
echo "model $(board /proc/device-tree || board /sys/firmware/devicetree/base || processor)"
while read -r name number _; do
    case "$name" in MemTotal:) echo "memory_kib $number" && break ;; esac
done 2>/dev/null </proc/meminfo
echo "ssh_connection $SSH_CONNECTION"
if read -r lab 2>/dev/null </etc/edgebed-lab; then echo "virtual $lab"; fi
"""

# Run by the host's Python: ports of an address that nobody uses now.
_FREE_PORTS = """
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sockets = [socket.create_server((address, 0), family=family) for _ in range(count)]
print(*(each.getsockname()[1] for each in sockets))
"""

SSH_CONNECTION = "ssh_connection"


@dataclass(frozen=True, slots=True)
class Ground:
    """A host that a run stands on.

    Attributes:
        holder: in whose name the host is held; None for this machine, which needs no lease.
        facts: what the host said of itself.
        ssh_addresses: how this machine and the host name themselves to each other over SSH; None for a local one.
    """

    host: Host
    remote: Remote
    installation: Installation
    holder: Holder | None
    folder: HostFolder
    facts: dict[str, str]
    ssh_addresses: tuple[str, str] | None

    @property
    def supervision(self) -> Supervision:
        """The run's programs on it."""
        return supervision_for(self.remote, self.folder.path, self.installation)

    def has_supervision(self) -> bool:
        """Was the host prepared so far that it may have programs?

        Raises:
            RemoteError: the host was lost.
        """
        if self.installation.keeper != "shell":
            return True  # deploying has placed what keeps them
        script = shlex.quote(f"{self.folder.path}/{SCRIPT}")
        return self.remote.execute(f"test -f {script}", idempotent=True).status == 0

    def free_ports(self, address: str, count: int) -> list[str]:
        """Ports that nobody listens on now.

        Raises:
            RemoteError: the address is not the host's, or the host was lost.
        """
        command = shlex.join([self.installation.python, "-I", "-S", "-c", _FREE_PORTS, address, str(count)])
        what = f"no free ports could be found at {address}; is it an address of this host? edgebed_address sets another"
        return self.remote.execute(command, idempotent=True).checked(what).text.split()

    def renew_lease(self) -> None:
        """Say that the host is still needed.

        Raises:
            WorkFailed: someone has broken the lease.
            RemoteError: the host was lost.
        """
        if self.holder is not None:
            lease.renew(self.remote, self.installation.root, self.holder)

    def drop_lease(self) -> None:
        """Need the host no longer.

        Raises:
            RemoteError: the host was lost.
        """
        if self.holder is not None:
            lease.drop(self.remote, self.installation.root, self.holder)

    def remove(self) -> None:
        """Delete the state folder, keys and all.

        Raises:
            RemoteError: it could not be removed.
        """
        path = self.folder.path
        # The last host of a machine also removes the folder around them.
        around = shlex.quote(posixpath.dirname(path))
        command = f"rm -rf {shlex.quote(path)} && {{ rmdir {around} 2>/dev/null || :; }}"
        self.remote.execute(command, idempotent=True).checked("the state folder could not be removed")


def reach(host: Host, remote: Remote, state: str, holder: Holder) -> Ground:
    """Connect to a host, hold it, and make the run's state folder there unless it has it.

    Args:
        host: as the plan has it.
        remote: the way to it.
        state: name of the run's state folders.
        holder: in whose name it is held.

    Raises:
        BadInput: it is not deployed, or with another edgebed.
        WorkFailed: someone else holds it.
        RemoteError: it cannot be reached, or the folder cannot be made.
    """
    remote.connect()
    installation = read_installation(remote, host)
    is_local = host.connection == "local"
    if not is_local:
        lease.take(remote, installation.root, holder)
    path = f"{STATE_ROOT}/{shlex.quote(state)}/{shlex.quote(host.name)}"
    command = f"umask 077; mkdir -p {path}/keys && cd {path} && pwd -P || exit 1\n{_FACTS}"
    folder, *lines = (
        remote.execute(command, idempotent=True).checked("the state folder could not be made").text.splitlines()
    )
    facts = {name: value.strip() for name, _, value in (line.partition(" ") for line in lines) if value.strip()}
    client, _, server, _ = (*facts.pop(SSH_CONNECTION, "").split(), *[""] * 4)[:4]
    return Ground(
        host,
        remote,
        installation,
        None if is_local else holder,
        HostFolder(folder),
        facts,
        (client, server) if server and not is_local else None,
    )
