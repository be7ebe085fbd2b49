"""The curves of a training as pictures, and one self-contained page with them."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.errors import MissingExtra
from edgebed.learning.metrics import MetricLine, read_metrics
from edgebed.learning.result import TrainingResult, training_result
from edgebed.learning.training_plan import TrainingPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_FOLDER = "curves"
PAGE_FILE = "report.html"

_COLUMNS = 3
_EVALUATED, _EXPLORING = "#1b6ca8", "#b5651d"
_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8.5,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "edgebed",  # else the picture of the same training differs from time to time
    "text.parse_math": False,
}


def write_curves(training: Path, plan: TrainingPlan) -> list[Path]:
    """Write ``curves/*.png`` and ``*.svg`` and ``report.html``; nothing while nothing has been measured.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    lines = read_metrics(training)
    if not lines:
        return []
    folder = training / CURVES_FOLDER
    folder.mkdir(exist_ok=True)
    pictures = {"learning_curve": _drawn(lambda figure: _learning_curve(figure, plan, lines), 7.5, 3.4)}
    if names := _other_names(lines):
        height_in = 0.6 + 1.7 * math.ceil(len(names) / _COLUMNS)
        pictures["metrics"] = _drawn(lambda figure: _metrics(figure, lines, names), 9.0, height_in)
    written = []
    for name, formats in pictures.items():
        for suffix, content in formats.items():
            written.append(folder / f"{name}.{suffix}")
            written[-1].write_bytes(content)
    page = training / PAGE_FILE
    page.write_text(_page(plan, training_result(plan, lines), pictures), encoding="utf-8")
    return [*written, page]


def _drawn(draw: Callable[[Figure], None], width_in: float, height_in: float) -> dict[str, bytes]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as NewFigure
    except ModuleNotFoundError:
        raise MissingExtra("orchestrator", "drawing the curves of a training") from None
    with mpl.rc_context(_STYLE):
        figure = NewFigure(figsize=(width_in, height_in), layout="constrained")
        draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.savefig(png, format="png", dpi=150)
    return {"svg": svg.getvalue(), "png": png.getvalue()}


def _learning_curve(figure: Figure, plan: TrainingPlan, lines: Sequence[MetricLine]) -> None:
    """Return while learning and return of the policies without exploration, apart: they are different things."""
    left, right = figure.subplots(1, 2, sharex=True)
    evaluated = [(line.steps, line.evaluation["return_mean"]) for line in lines if line.evaluation]
    exploring = [
        (line.steps, line.learning["return_exploring"]) for line in lines if "return_exploring" in line.learning
    ]
    _curve(left, evaluated, _EVALUATED)
    left.set_title(f"evaluated, without exploration ({plan.training.evaluation_episodes} episodes)")
    _curve(right, exploring, _EXPLORING)
    right.set_title("while learning, exploration included")
    left.set_ylabel("return")
    for axes in (left, right):
        axes.set_xlabel("environment steps a seed, all cells together")


def _metrics(figure: Figure, lines: Sequence[MetricLine], names: Sequence[str]) -> None:
    rows = math.ceil(len(names) / _COLUMNS)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        values = [
            (line.steps, found[name]) for line in lines for found in (line.learning | line.evaluation,) if name in found
        ]
        _curve(axes, values, _EXPLORING if any(name in line.learning for line in lines) else _EVALUATED)
        axes.set_title(name)
    for axes in panels[len(names) :]:
        axes.set_visible(False)


def _curve(axes: Axes, points: Sequence[tuple[int, Sequence[float | None]]], colour: str) -> None:
    """A thin line a seed, and their mean."""
    if not points:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        return
    steps = [step for step, _ in points]
    seeds = len(points[0][1])
    columns = [[_mean(values[index : index + 1]) for _, values in points] for index in range(seeds)]
    if seeds > 1:
        for column in columns:
            axes.plot(steps, column, color=colour, linewidth=0.6, alpha=0.4)
    means = [_mean(values) for _, values in points]
    marker = "o" if len(points) == 1 else None
    axes.plot(steps, means, color=colour, linewidth=1.6, marker=marker)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _other_names(lines: Sequence[MetricLine]) -> list[str]:
    names: dict[str, None] = {}
    for line in lines:
        names |= dict.fromkeys([*line.learning, *line.evaluation])
    return [name for name in names if name not in ("return_exploring", "return_mean")]


def _page(plan: TrainingPlan, result: TrainingResult | None, pictures: dict[str, dict[str, bytes]]) -> str:
    title = html.escape(f"{plan.learner} in {plan.scenario}")
    images = "\n".join(
        f'<h2>{name.replace("_", " ").capitalize()}</h2>\n<img alt="{name}" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(formats["svg"]).decode()}">'
        for name, formats in pictures.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.15rem .7rem;border-bottom:1px solid #ddd;text-align:left}}
img{{max-width:100%}}code{{white-space:pre-wrap}}</style>
<h1>{title}</h1>
{_result_table(plan, result)}
{images}
<p>A thick line is the mean over seeds, a thin one a seed.</p>
<h2>Settings</h2>
<p><code>{html.escape(plan.to_yaml())}</code></p>
</html>
"""


def _result_table(plan: TrainingPlan, result: TrainingResult | None) -> str:
    if result is None:
        return "<p>Not evaluated yet.</p>"
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in ("", "mean", "95 % interval", *_seed_heads(plan)))
    rows = []
    for name, measure in result.measures.items():
        interval = "" if measure.ci95 is None else f"{measure.ci95[0]:.5g} to {measure.ci95[1]:.5g}"
        cells = [name, _shown(measure.mean), interval, *map(_shown, measure.by_seed)]
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return (
        f"<p>After {result.steps} environment steps a seed; mean of the last {result.evaluations} evaluations of "
        f"{result.episodes} episodes each, without exploration; interval over {len(result.seeds)} seeds.</p>\n"
        f"<table><tr>{heads}</tr>{''.join(rows)}</table>"
    )


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.5g}"


def _seed_heads(plan: TrainingPlan) -> list[str]:
    return [f"seed {seed}" for seed in plan.seeds]
