"""The table and the plots of `benchmarks.dc_drl_results`, from its raw numbers alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dc_drl_jobs import (
    ABLATION_STEPS,
    BUDGETS,
    COMPARED,
    INFORMED,
    REFERENCES,
    SEEDS,
    SHAPES,
    SIZES,
    TEST_EPISODES,
    VARIANTS,
    jobs,
)
from benchmarks.dc_drl_plots import of_shape, plot_all, reference
from edgebed.simulation.intervals import t_interval

MISSING = "missing"

ABOUT = (
    f"Cost a task in the scenario `dc-drl`, lower is better: mean over {len(SEEDS)} training seeds, each tested "
    f"without exploration on the same {TEST_EPISODES} episodes, with Student's 95 % interval over the seeds. A "
    "learner's number is the mean of its last five of 20 evaluations. *below* and *above* are said where the 95 % "
    "interval of the paired difference, seed by seed, excludes 0. Interactions are summed over cells."
)

EXPLAINED = (
    "Informed policies know the true state and the cost equations. `perceptron`: DC-DRL whose critic is any function "
    "of state and decisions, as it was before."
)

Raw = dict[str, dict[str, Any]]


def write_tables(output: Path) -> None:
    """``README.md`` and the plots, of what there is in ``raw``; what is not there is called missing."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((output / "raw").glob("*.json"))]
    raw = {one["job"]: one for one in found if "job" in one}
    known = [one for one in found if "job" not in one]
    page = "\n".join([*_head(raw), *_main(raw, known), *_ablations(raw), *_shapes(raw, known), *_claims(raw)])
    (output / "README.md").write_text(page.rstrip() + "\n", encoding="utf-8")
    if raw:
        plot_all(output, raw, known)


def _head(raw: Raw) -> list[str]:
    done, planned = sum(job.name in raw for job in jobs()), sum(1 for _ in jobs())
    machines = sorted({one["machine"] for one in raw.values()})
    return [
        "# DC-DRL: results",
        "",
        "Made by `python -m benchmarks.dc_drl_results`; `docs/learners/dc_drl.md` explains them.",
        "",
        ABOUT,
        "",
        f"{done} of {planned} trainings are there; the command goes on with the `{MISSING}` ones. Machine: "
        + ("; ".join(machines) or "none yet"),
        "",
        "![Cost against the number of devices](devices.svg)",
        "",
        "Learning curves, the band from the best to the worst seed: "
        + ", ".join(f"[N = {n}](curves-n{n}.svg)" for n in sorted(SIZES))
        + ".",
    ]


def _main(raw: Raw, known: list[Any]) -> list[str]:
    sizes = sorted(SIZES)
    lines = ["", "## Cost a task and the number of devices", "", _row(["policy", *(f"N = {n}" for n in sizes)])]
    lines.append(_row(["---"] * (len(sizes) + 1)))
    for learner, budgets in VARIANTS.items():
        for steps in budgets:
            cells = [_cell(raw.get(f"{learner}-{steps // 1000}k-n{n}")) for n in sizes]
            lines.append(_row([f"`{learner}`, {steps // 1000} k", *cells]))
    for name in REFERENCES:
        cells = [_number(reference(known, {"n": n}, name)) for n in sizes]
        lines.append(_row([f"`{name}`" + (" (informed)" if name in INFORMED else ""), *cells]))
    lines += [
        "",
        EXPLAINED,
        "",
    ]
    lines += [_row(["", "is", *(f"N = {n}" for n in sizes)]), _row(["---"] * (len(sizes) + 2))]
    for variant, steps in ((one, steps) for one, budgets in VARIANTS.items() if one != "ppo" for steps in budgets):
        ours = {n: raw.get(f"{variant}-{steps // 1000}k-n{n}") for n in sizes}
        who = f"`{variant}`, {steps // 1000} k"
        cells = [_paired(ours[n], _costs(raw.get(f"ppo-{steps // 1000}k-n{n}"))) for n in sizes]
        lines.append(_row([who, "`ppo`", *cells]))
        for name in REFERENCES:
            cells = [_paired(ours[n], _repeated(reference(known, {"n": n}, name))) for n in sizes]
            lines.append(_row([who, f"`{name}`", *cells]))
    return lines


def _ablations(raw: Raw) -> list[str]:
    steps = ABLATION_STEPS
    base = raw.get(f"dc_drl-{steps // 1000}k-n10")
    lines = ["", f"## Ablations and baselines, N = 10, {steps // 1000} k interactions", ""]
    lines += ["![Ablations](ablations.svg)", ""]
    head = ["variant", "cost a task", "DC-DRL against it", "mean n", "fitness variance, first and last fifth"]
    lines += [_row(head), _row(["---"] * len(head))]
    for name in COMPARED:
        one = raw.get(f"{name}-{steps // 1000}k-n10")
        against = "" if name == "dc_drl" else _paired(base, _costs(one))
        lines.append(_row([f"`{name}`", _cell(one), against, _last(one, "n_mean"), _fifths(one, "fitness_variance")]))
    return lines


def _shapes(raw: Raw, known: list[Any]) -> list[str]:
    lines = ["", f"## Shapes, N = 10, {ABLATION_STEPS // 1000} k interactions", ""]
    lines += ["![Shapes](shapes.svg)", ""]
    head = ["", "scenario", "`dc_drl`", "`ppo`", "`all_local`", "`uniform_random`", "`greedy_sampled_100`"]
    lines += [_row(head), _row(["---"] * len(head))]
    for title, variants in SHAPES.items():
        for changes in (variants[0], {}, variants[1]):
            parameters = {"n": 10} | changes
            cells = [_cell(of_shape(raw, learner, parameters)) for learner in ("dc_drl", "ppo")]
            names = ("all_local", "uniform_random", "greedy_sampled_100")
            cells += [_number(reference(known, parameters, name)) for name in names]
            setting = ", ".join(f"`{key}` {value:g}" for key, value in changes.items()) or "as it is"
            lines.append(_row([title, setting, *cells]))
    return lines


def _claims(raw: Raw) -> list[str]:
    lines = ["", "## The gap to PPO", "", "Paired difference to PPO, `dc_drl` minus `ppo`, by N:", ""]
    for steps in BUDGETS:
        for n in (10, 15, 20):
            ours, theirs = (_costs(raw.get(f"{name}-{steps // 1000}k-n{n}")) for name in ("dc_drl", "ppo"))
            if ours is None or theirs is None:
                lines.append(f"- {steps // 1000} k, N = {n}: {MISSING}")
            else:
                lines.append(f"- {steps // 1000} k, N = {n}: {_interval(np.subtract(ours, theirs))}")
    return lines


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _costs(one: dict[str, Any] | None) -> list[float] | None:
    return None if one is None else one["cost_by_seed"]


def _repeated(value: float | None) -> list[float] | None:
    return None if value is None else [value] * len(SEEDS)


def _interval(values: Any) -> str:
    found = t_interval([float(one) for one in values])
    assert found is not None
    return f"{np.mean(values):+.3f} [{found[0]:+.3f}, {found[1]:+.3f}]"


def _cell(one: dict[str, Any] | None) -> str:
    costs = _costs(one)
    if costs is None:
        return MISSING
    interval = t_interval(costs)
    assert interval is not None
    return f"{np.mean(costs):.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _paired(ours: dict[str, Any] | None, theirs: list[float] | None) -> str:
    costs = _costs(ours)
    if costs is None or theirs is None:
        return MISSING
    difference = np.subtract(costs, theirs)
    interval = t_interval(difference.tolist())
    assert interval is not None
    word = "below" if interval[1] < 0 else "above" if interval[0] > 0 else "undecided"
    return f"{word} ({_interval(difference)})"


def _last(one: dict[str, Any] | None, metric: str) -> str:
    points = [] if one is None else one["learning"].get(metric, [])
    return f"{points[-1][1]:.2f}" if points else ""


def _fifths(one: dict[str, Any] | None, metric: str) -> str:
    points = [] if one is None else one["learning"].get(metric, [])
    if len(points) < 5:
        return ""
    fifth, values = len(points) // 5, [value for _, value in points]
    return f"{np.mean(values[:fifth]):.3g} → {np.mean(values[-fifth:]):.3g}"
