"""How long an experiment of many devices takes in virtual time, from its files to its sealed tables and its report.

    .venv/bin/python benchmarks/simulated_scale.py --devices 10000 --epochs 100

The command is the user's own, ``edgebed run EXPERIMENT --backend simulated``, in a process of its own; its time and its
peak memory are what the system says. The aim: 10,000 devices and 100 epochs in at most 60 s and 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

AIM_S = 60.0
AIM_BYTES = 2 << 30


def write_files(folder: Path, devices: int, epochs: int, policy: str) -> tuple[Path, Path]:
    """The experiment and its hosts: a task a device and epoch on average, one edge server for every 100 devices."""
    names = [f"pi-{number}" for number in range(devices)]
    servers = [f"edge-{number}" for number in range(max(1, devices // 100))]
    hosts = [
        "all:",
        "  vars: {ansible_connection: local}",
        "  children:",
        "    edge_servers:",
        "      vars: {edgebed_board: generic-x86, edgebed_workers: 8, edgebed_queue_tasks: 1000}",
        "      hosts:",
        *(f"        {name}: {{}}" for name in servers),
        "    devices:",
        "      vars: {edgebed_board: raspberry-pi-4b, edgebed_slowdown: 8, edgebed_link: {rate_bps: 20000000}}",
        "      hosts:",
        *(f"        {name}: {{}}" for name in names),
    ]
    experiment = {
        "name": "scale",
        "workload": "digits",
        "deadline_s": 1.0,
        "arrivals": {"kind": "poisson", "rate_per_s": 1.0, "frames": {"low": 2, "high": 8}},
        "epoch_s": 1.0,
        "epochs": epochs,
        "policies": [policy],
        "seeds": [1],
    }
    (folder / "hosts.yaml").write_text("\n".join(hosts) + "\n")
    (folder / "scale.yaml").write_text(json.dumps(experiment))
    return folder / "scale.yaml", folder / "hosts.yaml"


def run(experiment: Path, hosts: Path, runs: Path) -> tuple[float, float, int, dict[str, object]]:
    """Seconds, of them those of the processor, peak resident bytes and the answer of the command."""
    command = [sys.executable, "-m", "orchestrator", "run", str(experiment), "--hosts", str(hosts), "--json"]
    command += ["--backend", "simulated", "--runs", str(runs)]
    answer = runs.parent / "answer.json"
    started_s = time.perf_counter()
    process = os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, str(answer), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)],
    )
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started_s
    if status:
        raise SystemExit(f"the run failed with status {os.waitstatus_to_exitcode(status)}; see above")
    cpu_s = usage.ru_utime + usage.ru_stime
    return seconds, cpu_s, usage.ru_maxrss * 1024, json.loads(answer.read_text().splitlines()[-1])


def main() -> int:
    """Measure, print one object, and say by the exit status whether the aim was met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--policy", default="queue_threshold")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgebed-scale-") as name:
        files = write_files(Path(name), chosen.devices, chosen.epochs, chosen.policy)
        seconds, cpu_s, peak_bytes, answer = run(*files, Path(name) / "runs")
    found = {
        "devices": chosen.devices,
        "epochs": chosen.epochs,
        "policy": chosen.policy,
        "tasks": answer["planned"],
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "peak_mib": round(peak_bytes / 2**20),
        "verdict": answer["verdict"],
    }
    print(json.dumps(found))
    return 0 if seconds <= AIM_S and peak_bytes <= AIM_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
