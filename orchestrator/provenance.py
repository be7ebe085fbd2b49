"""What a run's manifest says of the software, the model and the hosts that it ran with."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from edgebed import __version__
from edgebed.trace.manifest import ClockOffset, Model, Software
from orchestrator.plan_file import Plan
from workloads import load_workload

PACKAGES = ("edgebed", "numpy", "pyzmq", "msgspec", "psutil", "onnxruntime", "pillow", "pyyaml", "duckdb", "pydantic")

_GIT_TIMEOUT_S = 5.0


def software() -> Software:
    """Versions on this machine, and the commit that the code was at, when it lies in a git repository."""
    commit, is_dirty = _git_state(Path(__file__).resolve().parent.parent)
    return Software(
        edgebed=__version__,
        python=platform.python_version(),
        git_commit=commit,
        git_dirty=is_dirty,
        packages={name: found for name in PACKAGES if (found := _version(name))},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _git_state(folder: Path) -> tuple[str, bool | None]:
    if not (folder / ".git").exists():
        return "", None
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return "", None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
    )
    return done.stdout


def model_of(plan: Plan) -> Model:
    """The recogniser of a plan's workload, as its manifest has it; empty for a workload that ships none.

    With a sweep over workloads it is the first one's.
    """
    setting = plan.settings[0]
    workload = load_workload(setting.workload, setting.workload_options)
    manifest = getattr(workload, "manifest", None)
    model, accuracy = getattr(manifest, "model", None), getattr(manifest, "accuracy", None)
    if model is None:
        return Model(name=setting.workload)
    return Model(
        name=f"{setting.workload}/{getattr(model, 'file', '')}",
        sha256=str(getattr(model, "sha256", "")),
        accuracy=getattr(accuracy, "fraction", None),
    )


VIRTUAL = "virtual"
"""A fact of hosts that are not what they seem: those of `edgebed lab`."""


def hosts_of(
    plan: Plan, told_by_hosts: Mapping[str, Mapping[str, str]], told_by_members: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Facts by host name: from the plan, from the host's shell, from the program there."""
    return {
        host.name: {
            "role": host.role,
            "connection": host.connection,
            "address": host.address,
            "board": msgspec.to_builtins(plan.boards[host.board]),
            "slowdown": host.slowdown,
            **({} if host.role == "device" else {"workers": host.workers}),
            **told_by_hosts.get(host.name, {}),
            **({"facts": dict(told_by_members[host.name])} if host.name in told_by_members else {}),
        }
        for host in plan.hosts
    }


def clocks_of(told_by_members: Mapping[str, Mapping[str, Any]], controller: str) -> dict[str, ClockOffset]:
    """Each host's clock against the controller's, which is the run clock's; hosts that did not say are left out."""
    found: dict[str, ClockOffset] = {}
    for name, facts in told_by_members.items():
        pair = _offset_in(facts, controller)
        if pair is not None:
            # They say by how much the controller's clock is ahead of theirs.
            found[name] = ClockOffset(offset_s=-pair[0], error_s=pair[1])
    return found


def _offset_in(facts: Mapping[str, Any], controller: str) -> tuple[float, float] | None:
    of_device = facts.get("clock_offsets_s")
    pair = of_device.get(controller) if isinstance(of_device, dict) else None
    if pair is None:
        pair = (facts.get("clock_offset_s"), facts.get("clock_error_s"))
    offset_s, error_s = pair
    if isinstance(offset_s, float) and isinstance(error_s, float):
        return offset_s, error_s
    return None
