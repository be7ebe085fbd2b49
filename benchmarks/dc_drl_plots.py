"""The plots of `benchmarks.dc_drl_results`, from its raw numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.dc_drl_jobs import ABLATION_STEPS, BUDGETS, COMPARED, SHAPES, SIZES, VARIANTS, Job
from edgebed.simulation.intervals import t_interval
from edgebed.simulation.scenarios.dc_drl_parameters import DcDrlParameters

Raw = dict[str, dict[str, Any]]

BESIDE = ("all_local", "greedy_sampled_100", "greedy_priced")
UNITS = {
    "data size": ("input at least", 1024e3, "1000 KB"),
    "cycles": ("cycles at least", 1e9, "10⁹"),
    "server": ("speed", 1e9, "10⁹ cycles/s"),
}
"""For each of `SHAPES` what its first parameter is called, its unit, and the unit's name."""
AS_IT_IS = DcDrlParameters()


def plot_all(output: Path, raw: Raw, known: list[Any]) -> None:
    """Curves for each N, cost against N, ablations and shapes, as far as there are numbers."""
    mpl.rcParams["svg.hashsalt"] = "edgebed"  # the same numbers give the same file
    for n in sorted(SIZES):
        shown = [one for one in raw.values() if one["parameters"] == {"n": n} and one["steps"] in BUDGETS]
        if shown:
            with _figure(output / f"curves-n{n}.svg") as figure:
                _curves(figure.add_subplot(), shown, known, n)
    if any(one["steps"] in BUDGETS for one in raw.values()):
        with _figure(output / "devices.svg") as figure:
            _by_devices(figure.add_subplot(), raw, known)
    compared = {name: raw[job] for name in COMPARED if (job := f"{name}-{ABLATION_STEPS // 1000}k-n10") in raw}
    if compared:
        with _figure(output / "ablations.svg", height=0.8 + 0.27 * len(compared)) as figure:
            _ablations(figure.add_subplot(), compared)
        with _figure(output / "shapes.svg", width=10.0, height=3.4) as figure:
            panels = figure.subplots(1, len(SHAPES), sharey=True)
            for axes, (title, variants) in zip(panels, SHAPES.items(), strict=True):
                _shape(axes, title, variants, raw, known)
            panels[0].set_ylabel("cost a task [95 %]")
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)


def reference(known: list[Any], parameters: dict[str, Any], name: str) -> float | None:
    """Cost a task of a hand-written policy in a scenario, if it was evaluated."""
    return next((one["cost"].get(name) for one in known if one["parameters"] == parameters), None)


def of_shape(raw: Raw, variant: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The training of a variant in a scenario, with the budget of ablations."""
    return raw.get(Job(variant, variant, ABLATION_STEPS, parameters).name)


@contextmanager
def _figure(path: Path, width: float = 7.0, height: float = 4.2) -> Iterator[Figure]:
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    figure.savefig(path, metadata={"Date": None})


def _curves(axes: Axes, shown: list[dict[str, Any]], known: list[Any], n: int) -> None:
    for one in shown:
        steps = [point[0] for point in one["curve"]]
        values = np.array([point[1] for point in one["curve"]])
        (line,) = axes.plot(steps, values.mean(axis=1), label=f"{one['variant']}, {one['steps'] // 1000} k")
        axes.fill_between(steps, values.min(axis=1), values.max(axis=1), alpha=0.12, color=line.get_color())
        explored = one["exploration"]
        axes.plot([p[0] for p in explored], [p[1] for p in explored], ":", color=line.get_color(), lw=1)
    for name in BESIDE:
        value = reference(known, {"n": n}, name)
        if value is not None:
            axes.axhline(value, color="0.5", lw=0.8, ls="--")
            axes.annotate(name, (0, value), fontsize=7, color="0.4", va="bottom")
    axes.set(xlabel="interactions, all cells", ylabel="cost a task", yscale="log", title=f"N = {n} (dotted: exploring)")
    axes.legend(fontsize=7)


def _by_devices(axes: Axes, raw: Raw, known: list[Any]) -> None:
    sizes = sorted(SIZES)
    for learner, budgets in VARIANTS.items():
        for steps in budgets:
            found = {n: raw[job] for n in sizes if (job := f"{learner}-{steps // 1000}k-n{n}") in raw}
            if found:
                means, errors = zip(*(_mean_and_half(one["cost_by_seed"]) for one in found.values()), strict=True)
                label = f"{learner}, {steps // 1000} k"
                axes.errorbar(list(found), means, errors, fmt="o-" if len(found) > 2 else "o:", capsize=3, label=label)
    for name in BESIDE:
        values = [reference(known, {"n": n}, name) for n in sizes]
        if None not in values:
            axes.plot(sizes, values, "--", lw=1, color="0.5")  # type: ignore[arg-type]
            axes.annotate(name, (sizes[-1], values[-1] or 0.0), fontsize=7, color="0.4")
    axes.set(xlabel="devices", ylabel="cost a task [95 %]", yscale="log", xticks=sizes)
    axes.legend(fontsize=7)


def _ablations(axes: Axes, compared: dict[str, dict[str, Any]]) -> None:
    names = sorted(compared, key=lambda name: -float(np.mean(compared[name]["cost_by_seed"])))
    for row, name in enumerate(names):
        by_seed = compared[name]["cost_by_seed"]
        colour = "#0072B2" if name == "dc_drl" else "0.3"
        axes.plot(by_seed, [row] * len(by_seed), "|", color=colour, alpha=0.6)
        axes.plot(np.mean(by_seed), row, "o", color=colour)
    axes.set(yticks=range(len(names)), yticklabels=names, xscale="log", xlabel="cost a task: mean, and each seed")
    axes.grid(axis="x", which="both", lw=0.3)


def _shape(axes: Axes, title: str, variants: list[dict[str, Any]], raw: Raw, known: list[Any]) -> None:
    label, unit, name_of_unit = UNITS[title]
    key = next(iter(variants[0]))
    places: dict[float, dict[str, Any]] = {one[key] / unit: {"n": 10} | one for one in variants}
    places[getattr(AS_IT_IS, key) / unit] = {"n": 10}
    places = dict(sorted(places.items()))
    for learner in ("dc_drl", "ppo"):
        found = {x: one for x, parameters in places.items() if (one := of_shape(raw, learner, parameters)) is not None}
        if found:
            means, errors = zip(*(_mean_and_half(one["cost_by_seed"]) for one in found.values()), strict=True)
            axes.errorbar(list(found), means, errors, fmt="o-", capsize=3, label=learner)
    for name in ("all_local", "uniform_random", "greedy_sampled_100", "greedy_priced"):
        points = [(x, value) for x, one in places.items() if (value := reference(known, one, name)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "--", lw=1, label=name)
    axes.set(xlabel=f"{label} ({name_of_unit})", yscale="log", title=title)


def _mean_and_half(values: list[float]) -> tuple[float, float]:
    interval = t_interval(values)
    assert interval is not None
    mean = float(np.mean(values))
    return mean, interval[1] - mean
