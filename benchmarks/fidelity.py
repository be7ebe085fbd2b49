"""How far a calibrated profile is from the testbed: local hosts, fitted on some runs and validated on others.

Fits a profile to three runs with three policies and two seeds each, and between them runs five policies (two of them
new to the profile) with three other seeds, twice: no simulator can be held to less than the difference between these
two repeats. In turns, because a machine that is faster for some minutes must not be so for the one or the other. Writes
``fidelity.md`` and ``fidelity.json``. Targets: median latency 5 %, 95 % latency 10 %, miss rate 3 points, energy 5 %,
or the repeat difference where that is larger; the measured order of policies is kept.

    python -m benchmarks.fidelity [-o docs/results] [--runs FOLDER] [--hosts FILE] [--realtime] [--reuse]

``--realtime`` gives the testbed's programs real-time priority (root), for a machine that others use too. What they do
to its caches and to cores that share a processor still slows it down, which the repeat difference shows. ``--reuse``
takes the newest five runs in the folder instead of running anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from orchestrator.calibration.comparison import ABSOLUTE, METRICS
from orchestrator.calibration.text import METRIC_WORDS
from orchestrator.shipped import LOCAL_HOSTS

EXPERIMENT = "inventory/experiments/demo.yaml"
TARGETS = {"median_latency": 0.05, "p95_latency": 0.10, "miss_rate": 0.03, "energy": 0.05}
FITTED = "policies=[all_local, all_edge, greedy_latency]"
PLANS = (
    ("fit", "seeds=[1, 2]", FITTED),
    ("check", "seeds=[11, 12, 13]", ""),
    ("fit", "seeds=[3, 4]", FITTED),
    ("check", "seeds=[11, 12, 13]", ""),
    ("fit", "seeds=[5, 6]", FITTED),
)


def edgebed(*arguments: object, realtime: bool = False) -> dict[str, Any]:
    """Run a command with ``--json``; its answer."""
    prefix = ["chrt", "-r", "10"] if realtime else []
    command = [*prefix, sys.executable, "-m", "orchestrator", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def run_all(runs: Path, hosts: Path, *, realtime: bool) -> list[dict[str, Any]]:
    """The runs in order of time, with the machine's load before each."""
    found = []
    for name, *changes in PLANS:
        load = os.getloadavg()[0]
        settings = [f"name=fidelity-{name}", "epochs=24", *(change for change in changes if change)]
        options = [part for setting in settings for part in ("--set", setting)]
        answer = edgebed("run", EXPERIMENT, "--hosts", hosts, "--runs", runs, *options, realtime=realtime)
        counts = {"done": answer["done"], "planned": answer["planned"]}
        found.append({"kind": name, "run": answer["run"], "load": load} | counts)
    return found


def newest(runs: Path) -> list[dict[str, Any]]:
    """The newest runs of both experiments, as `run_all` names them."""
    found: list[dict[str, Any]] = []
    for kind in ("fit", "check"):
        count = sum(name == kind for name, *_ in PLANS)
        there = sorted((runs / f"fidelity-{kind}").glob("2*"))[-count:]
        if len(there) < count:
            raise SystemExit(f"{runs} has fewer than {count} runs of fidelity-{kind}; leave --reuse out")
        found += [{"kind": kind, "run": str(run)} for run in there]
    return found


def of_kind(runs: list[dict[str, Any]], kind: str) -> list[str]:
    """The folders of the runs to be fitted to, or of those to be compared with."""
    return [each["run"] for each in runs if each["kind"] == kind]


def table(found: dict[str, Any]) -> str:
    """The errors as a Markdown table."""
    lines = [f"| | {' | '.join(METRIC_WORDS[metric] for metric in METRICS)} |", f"|---|{'---:|' * len(METRICS)}"]
    for name, each in found["policies"].items():
        lines.append(f"| `{name}` | {' | '.join(_error(metric, each['errors'].get(metric)) for metric in METRICS)} |")
    overall = found["errors"]
    lines.append(f"| **all, mean of abs. errors** | {' | '.join(_error(m, overall.get(m)) for m in METRICS)} |")
    lines.append(f"| repeat difference | {' | '.join(_amount(m, overall[m]['repeat'], '') for m in METRICS)} |")
    lines.append(f"| target | {' | '.join(_amount(m, TARGETS[m], '') for m in METRICS)} |")
    lines.append(f"| met | {' | '.join(verdict(m, overall[m]) for m in METRICS)} |")
    return "\n".join(lines)


def verdict(metric: str, error: dict[str, float]) -> str:
    """Is the error below the target, or below what repeats differ by?"""
    if error["value"] <= TARGETS[metric]:
        return "yes"
    return "yes: below the repeat difference" if error["value"] <= error["repeat"] else "no"


def _error(metric: str, error: dict[str, float] | None) -> str:
    if error is None:
        return "-"
    low, high = (_amount(metric, error[end], "+") for end in ("low", "high"))
    return f"{_amount(metric, error['value'], '+')} [{low}, {high}]"


def _amount(metric: str, value: float, sign: str) -> str:
    return f"{100 * value:{sign}.1f} {'points' if metric in ABSOLUTE else '%'}"


def page(found: dict[str, Any], runs: list[dict[str, Any]], machine_text: str, hosts: Path, *, realtime: bool) -> str:
    """The whole page."""
    kept = found["ranking"]["pairs"] - len(found["ranking"]["broken"])
    fitted, names = (" and ".join(Path(run).name for run in of_kind(runs, kind)) for kind in ("fit", "check"))
    priority = ", its programs at real-time priority because others used the machine too" if realtime else ""
    loads = ", ".join(f"{each['load']:.1f}" for each in runs if "load" in each)
    made = (
        f"Made by `python -m benchmarks.fidelity` on the hosts of {hosts.name}, on {machine_text}{priority}. "
        f"Fitted to {fitted} (three policies, two seeds each), compared with {names}, made between them (five "
        "policies, three other seeds, the same plan twice)."
    )
    if loads:
        made += f" Load of the machine before each run: {loads}."
    ranking = (
        "In brackets: 95 % intervals over seeds. Measured orders of policies that are kept: "
        f"{kept} of {found['ranking']['pairs']}."
    )
    notices = [f"> {notice}\n" for notice in found["notices"]]
    return "\n".join(["# Fidelity of a calibrated profile", "", made, "", table(found), "", ranking, "", *notices])


def main() -> int:
    """Run, fit, compare, write; 1 when a target is missed by more than repeats differ."""
    parser = argparse.ArgumentParser(description="How far a calibrated profile is from the testbed.")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--hosts", type=Path, default=LOCAL_HOSTS)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--reuse", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.runs.mkdir(parents=True, exist_ok=True)
    runs = newest(options.runs) if options.reuse else run_all(options.runs, options.hosts, realtime=options.realtime)
    profile = options.runs / "fidelity-profile.yaml"
    edgebed("calibrate", *of_kind(runs, "fit"), "-o", profile)
    found = edgebed("validate", profile, *of_kind(runs, "check"))
    text = page(found, runs, machine()["machine"], options.hosts, realtime=options.realtime)
    (options.output / "fidelity.md").write_text(text)
    kept = {key: found[key] for key in ("errors", "policies", "ranking", "ranking_kept", "notices")}
    plain = {"machine": machine(), "runs": [Path(each["run"]).name for each in runs], **kept}
    (options.output / "fidelity.json").write_text(json.dumps(plain, indent=1) + "\n")
    print(text)
    is_met = all(verdict(metric, found["errors"][metric]) != "no" for metric in METRICS)
    return 0 if is_met and found["ranking_kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
