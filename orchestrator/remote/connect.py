"""The way to each host of an inventory: this machine, or SSH."""

from __future__ import annotations

from orchestrator.inventory import Host
from orchestrator.remote.base import Remote
from orchestrator.remote.host_keys import KnownHosts
from orchestrator.remote.local import LocalRemote
from orchestrator.remote.retrying import RetryingRemote


def remote_for(host: Host, known_hosts: KnownHosts) -> Remote:
    """How a host is reached; nothing is connected yet.

    Args:
        host: of the inventory.
        known_hosts: the keys that hosts may show; one for all hosts of a command, so that it sees clones among them.

    Raises:
        BadInput: ``~/.ssh/config`` has something that is not understood.
    """
    if host.connection == "local":
        return LocalRemote(host.name)
    # Imported here: paramiko takes a fifth of a second, which who has local hosts alone need not wait.
    from orchestrator.remote.ssh import SshRemote
    from orchestrator.remote.ssh_config import SshConfig

    return RetryingRemote(SshRemote(SshConfig.load().target_of(host), known_hosts))
