"""A validation as one HTML file without links to others: notices, errors, the ranking, and both sides' curves."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebed.errors import BadInput, MissingExtra
from edgebed.simulation.testbed.profile import Profile
from orchestrator.calibration.comparison import METRICS, Compared, Error
from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.text import METRIC_WORDS, error_text, repeat_text
from orchestrator.calibration.validate import Validation
from orchestrator.report.figures import Picture, drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED, SIMULATED = "#0072B2", "#D55E00"
COLUMNS = 2
POINTS = 400
"""Steps of a curve that are drawn."""


def write_page(found: Validation, profile: Profile, profile_name: str, out: Path) -> None:
    """Write the page.

    Raises:
        BadInput: it cannot be written.
        MissingExtra: Jinja or matplotlib is not installed.
    """
    page = render(found, profile, profile_name)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{out}: the page cannot be written: {error.strerror}") from None


def render(found: Validation, profile: Profile, profile_name: str) -> str:
    """The page."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError:
        raise MissingExtra("orchestrator", "writing a page") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files(__package__) / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        found=found,
        source=profile.source,
        profile_name=profile_name,
        metrics=[METRIC_WORDS[metric] for metric in METRICS],
        overall=[error_text(metric, found.errors.get(metric)) for metric in METRICS],
        repeats=[repeat_text(metric, found.errors.get(metric)) for metric in METRICS],
        rows=[_row(policy) for policy in found.policies],
        pictures=[_embedded(picture) for picture in (latency_picture(found), errors_picture(found)) if picture],
    )


def _row(policy: Compared) -> dict[str, Any]:
    return {
        "name": policy.name,
        "errors": [error_text(metric, policy.errors.get(metric)) for metric in METRICS],
        "distance": "-" if policy.wasserstein_s is None else f"{1e3 * policy.wasserstein_s:.1f} ms",
        "ks": "-" if policy.ks is None else f"{policy.ks:.3f}",
        "tasks": policy.measured_tasks,
        "simulated": policy.simulated_tasks,
    }


def _embedded(picture: Picture) -> dict[str, str]:
    return {"src": f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}", "alt": picture.alt}


def latency_picture(found: Validation) -> Picture | None:
    """Both distribution functions of the latency of done tasks, a panel a policy."""
    shown = [(name, *both) for name, both in found.latencies_s.items() if len(both[0]) and len(both[1])]
    if not shown:
        return None
    panel_rows = -(-len(shown) // COLUMNS)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(panel_rows, COLUMNS, squeeze=False).ravel()
        for panel in panels[len(shown) :]:
            panel.set_visible(False)
        for axes, (name, measured, simulated) in zip(panels, shown, strict=False):
            axes.plot(*_curve(measured), color=MEASURED, label="measured", linewidth=1.8)
            axes.plot(*_curve(simulated), color=SIMULATED, label="simulated", linewidth=1.8, linestyle=(0, (5, 2)))
            axes.set_title(name, loc="left", fontsize=9)
            axes.set_ylim(0, 1.02)
            axes.set_xlim(left=0)
        panels[0].legend(loc="lower right")
        figure.supxlabel("latency of done tasks (ms)", fontsize=9)
        figure.supylabel("share of tasks done within", fontsize=9)

    alt = "Latency, measured and simulated. Medians: " + "; ".join(
        f"{name} {1e3 * float(np.median(measured)):.0f} and {1e3 * float(np.median(simulated)):.0f} ms"
        for name, measured, simulated in shown
    )
    return drawn(0.6 + 2.1 * panel_rows, alt, draw)


def _curve(latency_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Milliseconds, and the share of tasks done within them."""
    shares: FloatArray = np.linspace(0.0, 1.0, min(POINTS, len(latency_s) + 1))
    return 1e3 * np.quantile(latency_s, shares), shares


def errors_picture(found: Validation) -> Picture | None:
    """The errors of each policy with their intervals; grey: how far repeats of one plan are apart."""
    if not found.errors:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(METRICS), sharey=True)
        for axes, metric in zip(panels, METRICS, strict=True):
            overall = found.errors.get(metric)
            if overall is not None:
                axes.axvspan(-100 * overall.repeat, 100 * overall.repeat, color="#dddddd", linewidth=0)
            axes.axvline(0, color="#222222", linewidth=1)
            for place, policy in enumerate(found.policies):
                _draw_error(axes, place, policy.errors.get(metric))
            axes.set_title(METRIC_WORDS[metric], loc="left", fontsize=9)
            axes.set_xlabel("points" if metric == "miss_rate" else "%")
        panels[0].set_yticks(range(len(found.policies)), [policy.name for policy in found.policies])
        panels[0].set_ylim(len(found.policies) - 0.4, -0.6)

    alt = "Errors with intervals, policy by policy; the numbers are in the table."
    return drawn(1.3 + 0.4 * len(found.policies), alt, draw)


def _draw_error(axes: Any, place: int, error: Error | None) -> None:
    if error is None:
        return
    sides = [[100 * (error.value - error.low)], [100 * (error.high - error.value)]]
    axes.errorbar([100 * error.value], [place], xerr=sides, fmt="o", color=SIMULATED, capsize=3, markersize=4)
