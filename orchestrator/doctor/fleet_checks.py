"""What only shows when hosts are looked at together: images that were cloned. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from orchestrator.doctor.finding import Finding, ok, warn
from orchestrator.doctor.probe import Probe

_MACHINE_FIX = (
    "sudo rm /etc/machine-id && sudo systemd-machine-id-setup, and reboot: hosts with the same one may get the same "
    "address from a DHCP server"
)
_KEY_FIX = (
    "on each of them: sudo rm /etc/ssh/ssh_host_* && sudo ssh-keygen -A && sudo systemctl restart ssh, and then "
    "`edgebed trust HOSTS`: who has one of these cards can pose as any of these hosts"
)


def check_clones(probes: Mapping[str, Probe]) -> dict[str, list[Finding]]:
    """Machine ids and SSH host keys that several hosts share.

    Args:
        probes: by host; those of one machine under several names are to be given once.
    """
    machines: dict[str, list[str]] = defaultdict(list)
    keys: dict[str, list[str]] = defaultdict(list)
    for host, probe in probes.items():
        if probe.text("machine_id"):
            machines[probe.text("machine_id")].append(host)
        for key in set(probe.lines("host_keys")):
            keys[key].append(host)
    return {host: [_machine(host, probe, machines), *_keys(host, probe, keys)] for host, probe in probes.items()}


def _machine(host: str, probe: Probe, machines: Mapping[str, list[str]]) -> Finding:
    identity = probe.text("machine_id")
    if not identity:
        return warn("machine_id", "the host has none", "sudo systemd-machine-id-setup")
    others = [each for each in machines[identity] if each != host]
    if others:
        return warn("machine_id", f"{identity[:8]}..., the same as {', '.join(others)}: a cloned image", _MACHINE_FIX)
    return ok("machine_id", f"{identity[:8]}..., its own")


def _keys(host: str, probe: Probe, keys: Mapping[str, list[str]]) -> list[Finding]:
    own = probe.lines("host_keys")
    if not own:
        return []
    others = sorted({other for key in own for other in keys[key] if other != host})
    if others:
        return [warn("host_key", f"the same SSH host key as {', '.join(others)}: a cloned image", _KEY_FIX)]
    return [ok("host_key", f"{len(own)} SSH host keys, its own")]
