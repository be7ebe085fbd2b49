"""Cost of a task against the number of devices, measured: the experiment that edgebed was made for.

    python -m benchmarks.cost_against_devices [--hosts inventory/hosts/local-six.yaml] [--devices 1 2 3 4 5 6] [-o DIR]

For every number N of devices: DC-DRL and PPO are trained in the scenario that was calibrated on these hosts (once, on a
run of other seeds), then all policies decide real tasks on the first N hosts, DC-DRL learning on, and with ``--frozen``
once more as it was trained. What is there already is not done again, so that it may be stopped and started again at any
time. Writes ``results.json``, ``table.md`` and ``cost.svg``: means with 95 % t-intervals over seeds, paired differences
to DC-DRL, and how many learned versions of its weights decided.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.machine import machine
from orchestrator.statistics import t_interval

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "inventory/experiments/cost-against-devices.yaml"
HOSTS = ROOT / "inventory/hosts/local-six.yaml"
LEARNERS = ("dc_drl", "ppo")
HEURISTICS = ("all_local", "all_edge", "uniform_random", "greedy_latency")
CALIBRATION = ("policies=[all_local,all_edge,uniform_random]", "seeds=[101,102]")
"""What the profile is fitted to: other seeds than those that are compared."""

LEARNING = ("scaling=heuristics", "cost_knee=30", "speed_range=1.3")
"""Of both learners: queues may be long, costs of several tasks add up, and hosts are never quite as fast as then."""

FROZEN = "dc_drl_frozen"
COLOURS = ("#444444", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#0072B2", "#D55E00")


def edgebed(*words: str | Path) -> dict[str, Any]:
    """Run a command with ``--json``; its answer. It shows its own progress."""
    command = [sys.executable, "-m", "orchestrator", *map(str, words), "--json"]
    print(f"$ edgebed {' '.join(map(str, words))}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def of_one_kind(work: Path, settings: dict[str, Any]) -> None:
    """See that what lies in a folder was made with these settings.

    Raises:
        SystemExit: it was made with others.
    """
    file = work / "settings.json"
    if not file.exists():
        file.write_text(json.dumps(settings, indent=1) + "\n")
    elif (found := json.loads(file.read_text())) != settings:
        raise SystemExit(f"{work} has what was made with {found}, not with {settings}; name another folder with --work")


def run_with(hosts: Path, runs: Path, changes: Sequence[str]) -> Path:
    """Run the experiment with these changes; its folder."""
    options = [word for change in changes for word in ("--set", change)]
    return Path(edgebed("run", EXPERIMENT, "--hosts", hosts, "--runs", runs, *options)["run"])


def calibrated(hosts: Path, work: Path, devices: int, changes: Sequence[str]) -> Path:
    """The profile of the hosts, fitted to a run of its own."""
    profile = work / "profile.yaml"
    if not profile.exists():
        run = run_with(hosts, work / "calibration", [*changes, *CALIBRATION, f"devices={devices}"])
        edgebed("calibrate", run, "-o", profile)
    return profile


def trained(learner: str, devices: int, steps: int, profile: Path, work: Path) -> Path:
    """The weights of a learner for so many devices."""
    weights = work / "trained" / f"{learner}-{devices}"
    if not (weights / "policy.json").exists():
        settings = [word for each in (f"n={devices}", *LEARNING) for word in ("--set", each)]
        options = ("--steps", str(steps), "--seeds", "0", "--runs", work / "trainings")
        answer = edgebed("train", learner, "--scenario", f"calibrated:{profile}", *settings, *options)
        shutil.copytree(answer["policies"][0], weights, dirs_exist_ok=True)
    return weights


def measured(
    hosts: Path, work: Path, devices: int, weights: dict[str, Path], changes: Sequence[str], *, frozen: bool
) -> Path:
    """The run with so many devices; ``frozen``: also by DC-DRL without learning on."""
    place = work / f"devices-{devices}"
    found = sorted(place.glob("*/*/tasks.parquet"))
    if found:
        return found[-1].parent
    learned = [
        f"{{name: ppo, weights: {weights['ppo']}}}",
        f"{{name: dc_drl, weights: {weights['dc_drl']}, learn: online}}",
    ]
    if frozen:
        learned.append(f"{{name: dc_drl, label: {FROZEN}, weights: {weights['dc_drl']}}}")
    policies = f"policies=[{', '.join([*HEURISTICS, *learned])}]"
    return run_with(hosts, place, [*changes, f"devices={devices}", policies])


def costs(run: Path) -> dict[str, dict[int, float]]:
    """Mean cost of a task after the warm-up, by policy and seed."""
    query = f"""
        SELECT policy, seed, avg(cost) FROM read_parquet('{run}/tasks.parquet')
        WHERE NOT list_contains(flags, 'warm_up') GROUP BY ALL ORDER BY ALL
    """
    found: dict[str, dict[int, float]] = {}
    for policy, seed, cost in duckdb.execute(query).fetchall():
        found.setdefault(policy, {})[seed] = cost
    return found


def versions_that_decided(run: Path) -> dict[int, int]:
    """How many learned versions of DC-DRL's weights decided tasks, besides those of the plan, by seed."""
    query = f"""
        SELECT seed, count(DISTINCT policy_version) FILTER (contains(policy_version, '+'))
        FROM read_parquet('{run}/tasks.parquet') WHERE policy = 'dc_drl' GROUP BY ALL ORDER BY ALL
    """
    return dict(duckdb.execute(query).fetchall())


def judged(by_policy: dict[str, dict[int, float]], reference: str = "dc_drl") -> dict[str, Any]:
    """Means with intervals, and the paired difference of every policy to the reference."""
    found = {}
    for policy, by_seed in by_policy.items():
        mean = t_interval(list(by_seed.values()))
        paired = t_interval([by_seed[seed] - by_policy[reference][seed] for seed in by_seed])
        assert mean is not None
        assert paired is not None
        found[policy] = {
            "cost": mean.mean,
            "ci95": [mean.low, mean.high],
            "minus_dc_drl": paired.mean,
            "minus_dc_drl_ci95": [paired.low, paired.high],
            "by_seed": by_seed,
        }
    return found


def table(results: dict[str, Any]) -> str:
    """The results for people, in Markdown."""
    lines = ["| devices | policy | cost per task [95 %] | minus DC-DRL, paired [95 %] |", "|---|---|---|---|"]
    for devices, policies in sorted(results.items(), key=lambda pair: int(pair[0])):
        for policy, one in policies["policies"].items():
            lines.append(
                f"| {devices} | {policy} | {one['cost']:.3f} {_interval(one['ci95'])} | "
                f"{one['minus_dc_drl']:+.3f} {_interval(one['minus_dc_drl_ci95'])} |"
            )
    return "\n".join(lines) + "\n"


def _interval(bounds: Sequence[float | None]) -> str:
    low, high = bounds
    return "(one seed)" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def draw(results: dict[str, Any], path: Path) -> None:
    """Cost against the number of devices."""
    mpl.rcParams["svg.hashsalt"] = "edgebed"
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    counts = sorted(map(int, results))
    names = list(results[str(counts[0])]["policies"])
    for name, colour in zip(names, COLOURS, strict=False):
        ones = [results[str(count)]["policies"][name] for count in counts]
        means = [one["cost"] for one in ones]
        halves = [0.0 if one["ci95"][1] is None else one["ci95"][1] - one["cost"] for one in ones]
        axes.errorbar(counts, means, halves, label=name, color=colour, marker="o", capsize=3, linewidth=1.4)
    axes.set(xlabel="devices", ylabel="cost per task (s of latency + 1 if missed)", xticks=counts)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Do what is missing, and write down what came out."""
    parser = argparse.ArgumentParser(description="Cost against the number of devices")
    parser.add_argument("--hosts", type=Path, default=HOSTS)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=30, help="of half a second, in each cell")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another key of the experiment")
    parser.add_argument("--steps", type=int, default=60_000, help="of each training")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/cost-against-devices", help="what lies between")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/results/cost-against-devices")
    parser.add_argument("--frozen", action="store_true", help="measure DC-DRL without learning on, too")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.output.mkdir(parents=True, exist_ok=True)
    settings = {
        "steps": options.steps,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "hosts": options.hosts.name,
        "set": options.set,
        "learning": list(LEARNING),
        "frozen": options.frozen,
    }
    of_one_kind(options.work, settings)
    profile = calibrated(options.hosts, options.work, max(options.devices), options.set)
    changes = [*options.set, f"seeds={options.seeds}", f"epochs={options.epochs}"]
    results: dict[str, Any] = {}
    for devices in options.devices:
        weights = {name: trained(name, devices, options.steps, profile, options.work) for name in LEARNERS}
        run = measured(options.hosts, options.work, devices, weights, changes, frozen=options.frozen)
        manifest = json.loads((run / "manifest.json").read_text())
        results[str(devices)] = {
            "verdict": manifest["verdict"],
            "reasons": manifest["reasons"],
            "policies": judged(costs(run)),
            "versions_that_decided": versions_that_decided(run),
        }
        answer = settings | {"results": results} | machine()
        (options.output / "results.json").write_text(json.dumps(answer, indent=1) + "\n")
        (options.output / "table.md").write_text(table(results))
        draw(results, options.output / "cost.svg")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
