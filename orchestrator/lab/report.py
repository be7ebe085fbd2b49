"""What is to be said of a lab: its description, how its keeper finds it, and how its links were when probed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from edgebed.errors import EdgebedError
from orchestrator.lab.live import LiveLab
from orchestrator.lab.probe import LinkProbe
from orchestrator.lab.spec import Lab, load_lab
from orchestrator.lab.teardown import keeper_pid

_PROBES = "probes.json"


def save_probes(lab: Lab, probes: Iterable[LinkProbe]) -> None:
    """Keep what probing found, for `report_of`."""
    (lab.state / _PROBES).write_text(json.dumps({probe.host: probe.to_plain() for probe in probes}))


def report_of(name: str) -> dict[str, Any]:
    """A lab as one JSON object: ``state`` is ``up`` or ``broken``, then with ``problem``."""
    try:
        lab = load_lab(name)
        if keeper_pid(lab) is None:
            return {"state": "broken", "problem": f"its keeper is gone; edgebed lab down --name {name}"}
        live = LiveLab(lab).status()["hosts"]
    except EdgebedError as error:
        return {"state": "broken", "problem": str(error)}
    probes = _probes(lab)
    hosts = {
        host.name: {
            "role": host.role,
            "address": host.address,
            "board": host.board["name"],
            "architecture": host.architecture,
            "slowdown": host.slowdown,
            "probe": probes.get(host.name),
            **live[host.name],
        }
        for host in lab.hosts
    }
    return {"state": "up", "hosts_file": lab.hosts_file, "shaper": lab.shaper, "hosts": hosts}


def _probes(lab: Lab) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((lab.state / _PROBES).read_text())
    except (OSError, ValueError):
        return {}
    return found
