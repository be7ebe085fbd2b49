"""The report's pictures, as SVG. The colours are Okabe and Ito's; dashes, hatches and names tell apart without them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from textwrap import fill
from typing import TYPE_CHECKING, Any

from edgebed.errors import MissingExtra
from orchestrator.report import text
from orchestrator.report.series import HostSeries
from orchestrator.report.summary import PARTS_OF_LATENCY, PolicySummary, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 9.2
MOST_PANELS = 12
MOST_HOSTS_BY_NAME = 8
LOG_ABOVE_RATIO = 30.0
GAP_FACTOR = 2.5
LABEL_LETTERS = 90

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 3)))
SITE_STYLES = {"device": ("#E69F00", ""), "edge": ("#0072B2", "///"), "split": ("#CC79A7", "xx")}

# Waiting is pale, work is strong; device, network and server each have a colour of their own.
PART_STYLES = {
    "decision_s": ("waiting for the decision", "#999999", ""),
    "device_queue_s": ("device: queue", "#F5D9A0", ""),
    "device_compute_s": ("device: computing", "#E69F00", ""),
    "uplink_queue_s": ("uplink: queue", "#BFE0F5", "///"),
    "uplink_s": ("uplink: sending", "#56B4E9", "///"),
    "server_queue_s": ("server: queue", "#A9C8DE", "\\\\\\"),
    "server_compute_s": ("server: computing", "#0072B2", "\\\\\\"),
    "downlink_s": ("downlink", "#CC79A7", ""),
}

_STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.5,
    "hatch.color": "#ffffff",
    "legend.frameon": False,
    "svg.hashsalt": "edgebed",  # else the picture of the same run differs from time to time
    "text.parse_math": False,  # a name may have a dollar sign
}


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG picture, and what it shows in words for who cannot see it."""

    svg: bytes
    alt: str


def drawn(height_in: float, alt: str, draw: Callable[[Figure], None]) -> Picture:
    """What ``draw`` puts on a figure of this height, as a picture.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as NewFigure
    except ModuleNotFoundError:
        raise MissingExtra("orchestrator", "drawing a report") from None
    # A Figure of its own, not pyplot's: no window system, no state shared with whoever else draws.
    with mpl.rc_context(_STYLE):
        figure = NewFigure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return Picture(buffer.getvalue(), alt)


def curve_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the curve of this number."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def _rows(axes: Axes, policies: Sequence[PolicySummary]) -> None:
    """Name the policies down the left side, the first on top."""
    axes.set_yticks(range(len(policies)), [policy.name for policy in policies])
    axes.set_ylim(len(policies) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _bars_height(policies: Sequence[PolicySummary]) -> float:
    return 1.3 + 0.38 * len(policies)


def latency_picture(summary: Summary) -> Picture | None:
    """How many of a policy's tasks were done within a time. Failed and unknown tasks keep a curve below 1."""
    quantiles = summary.series.latency_s
    shown = [policy for policy in summary.policies if (policy.policy, policy.setting) in quantiles]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, policy in enumerate(shown):
            values = quantiles[policy.policy, policy.setting]
            steps = [policy.done / policy.tasks * step / (len(values) - 1) for step in range(len(values))]
            axes.plot([1e3 * value for value in values], steps, label=policy.name, linewidth=1.8, **curve_style(index))
        for number, deadline_s in enumerate(summary.deadlines_s if len(summary.deadlines_s) <= 3 else ()):
            axes.axvline(1e3 * deadline_s, color="#222222", linewidth=1, linestyle=":")
            axes.annotate(
                "deadline" if number == 0 else "",
                (1e3 * deadline_s, 0.02),
                xytext=(3, 0),
                textcoords="offset points",
                rotation=90,
                color="#222222",
            )
        every = [value for values in quantiles.values() for value in values if value > 0]
        if every and max(every) / min(every) > LOG_ABOVE_RATIO:
            axes.set_xscale("log")
            # matplotlib's own labels of a logarithmic axis are mathematics, which is switched off here.
            axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda value, position: "")
        else:
            axes.set_xlim(left=0)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("latency from the scheduled arrival (ms)")
        axes.set_ylabel("share of tasks done within")
        axes.legend(loc="lower right", handlelength=3.5)

    alt = "Share of tasks done within a latency. Medians: " + "; ".join(
        f"{policy.name} {text.milliseconds(policy.p50_s)}" for policy in shown
    )
    return drawn(3.6, alt, draw)


def stages_picture(summary: Summary) -> Picture | None:
    """Mean latency of done tasks, put together from its stages."""
    shown = [policy for policy in summary.policies if policy.parts_s]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = [0.0] * len(shown)
        for part in PARTS_OF_LATENCY:
            label, colour, hatch = PART_STYLES[part]
            widths = [1e3 * policy.parts_s.get(part, 0.0) for policy in shown]
            if any(widths):
                axes.barh(range(len(shown)), widths, left=left, color=colour, hatch=hatch, label=label, height=0.66)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        for row, end in enumerate(left):
            axes.text(end, row, f" {text.number(end)} ms", va="center")
        _rows(axes, shown)
        axes.set_xlim(0, 1.12 * max(left) or 1.0)
        axes.set_xlabel("mean over done tasks (ms)")
        figure.legend(loc="outside upper center", ncols=4, handlelength=1.6)

    alt = "Where the time goes, stage by stage: " + "; ".join(
        f"{policy.name}: "
        + ", ".join(f"{PART_STYLES[p][0]} {text.milliseconds(v)}" for p, v in policy.parts_s.items() if v)
        for policy in shown
    )
    return drawn(_bars_height(shown) + 0.4, alt, draw)


def misses_picture(summary: Summary) -> Picture | None:
    """Tasks whose deadline was missed: done late, or failed; and those of unknown outcome, which are neither."""
    shown = summary.policies
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        kinds = (
            ("done, but late", "missed", "#E69F00", ""),
            ("failed", "failed", "#D55E00", "///"),
            ("outcome unknown", "unknown", "#999999", "xx"),
        )
        left = [0.0] * len(shown)
        for label, name, colour, hatch in kinds:
            widths = [100 * getattr(policy, name) / policy.tasks for policy in shown]
            axes.barh(range(len(shown)), widths, left=left, color=colour, hatch=hatch, label=label, height=0.6)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        for row, policy in enumerate(shown):
            missed = policy.missed + policy.failed
            axes.text(left[row], row, f" {missed} of {policy.tasks}", va="center")
        _rows(axes, shown)
        axes.set_xlim(0, max(1.15 * max(left), 5.0))
        axes.set_xlabel("share of tasks (%)")
        figure.legend(loc="outside upper center", ncols=3, handlelength=1.6)

    alt = "Missed deadlines: " + "; ".join(
        f"{policy.name} {policy.missed} late, {policy.failed} failed, {policy.unknown} unknown of {policy.tasks}"
        for policy in shown
    )
    return drawn(_bars_height(shown), alt, draw)


def energy_picture(summary: Summary) -> Picture | None:
    """Energy that a done task added, on the device and on the server."""
    shown = [policy for policy in summary.policies if policy.device_energy_j is not None]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        device = [policy.device_energy_j or 0.0 for policy in shown]
        server = [policy.server_energy_j or 0.0 for policy in shown]
        places = range(len(shown))
        axes.barh(places, device, color="#E69F00", label="device", height=0.6)
        axes.barh(places, server, left=device, color="#0072B2", hatch="///", label="edge server", height=0.6)
        totals = [one + other for one, other in zip(device, server, strict=True)]
        errors = [found.mean if (found := policy.measures["energy_error_j"]) else 0.0 for policy in shown]
        axes.errorbar(totals, places, xerr=errors, fmt="none", ecolor="#222222", capsize=3, label="stated error")
        _rows(axes, shown)
        axes.set_xlim(left=0)
        axes.set_xlabel(fill(f"energy per done task (J), {summary.energy_label}", LABEL_LETTERS))
        figure.legend(loc="outside upper center", ncols=3, handlelength=1.6)

    alt = f"Energy per task, {summary.energy_label}: " + "; ".join(
        f"{policy.name} device {text.number(policy.device_energy_j)} J, server {text.number(policy.server_energy_j)} J"
        for policy in shown
    )
    return drawn(_bars_height(shown), alt, draw)


def decisions_picture(summary: Summary) -> Picture | None:
    """Where a policy's tasks ran, over the epochs, all seeds together."""
    decisions = summary.series.decisions
    shown = [policy for policy in summary.policies if (policy.policy, policy.setting) in decisions][:MOST_PANELS]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)

    def draw(figure: Figure) -> None:
        panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
        sites: dict[str, Any] = {}
        for panel, policy in zip(panels, shown, strict=False):
            found = decisions[policy.policy, policy.setting]
            edges = [*found.epochs, found.epochs[-1] + _bin_width(found.epochs)]
            low = [0.0] * len(edges)
            for site, values in found.shares.items():
                colour, hatch = SITE_STYLES.get(site, ("#999999", ""))
                high = [base + 100 * share for base, share in zip(low, [*values, values[-1]], strict=True)]
                sites[site] = panel.fill_between(
                    edges, low, high, step="post", facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0
                )
                low = high
            panel.set_title(policy.name, fontsize=9)
            panel.set_ylim(0, 100)
            panel.margins(x=0)
        for panel in panels[len(shown) :]:
            panel.set_visible(False)
        figure.supxlabel("epoch of arrival", fontsize=9)
        figure.supylabel("share of tasks (%)", fontsize=9)
        figure.legend(sites.values(), sites.keys(), loc="outside upper center", ncols=3)

    return drawn(0.8 + 1.5 * rows, "Where tasks ran, epoch by epoch: " + _sites_in_words(shown), draw)


def _bin_width(epochs: Sequence[int]) -> int:
    return min((later - earlier for earlier, later in pairwise(epochs)), default=1)


def _sites_in_words(policies: Sequence[PolicySummary]) -> str:
    return "; ".join(
        f"{policy.name} offloads {text.percent(found.mean)}"
        for policy in policies
        if (found := policy.measures["offload_share"]) is not None
    )


_PANELS = (
    ("cpu", "processor (%)", 100.0),
    ("temperature_c", "temperature (°C)", 1.0),
    ("power_w", "power (W)", 1.0),
)


def hosts_picture(summary: Summary) -> Picture | None:
    """Processor, temperature and power of the hosts over the run."""
    hosts = summary.series.hosts
    panels = [panel for panel in _PANELS if any(_is_known(host, panel[0]) for host in hosts)]
    if not panels:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        by_name = len(hosts) <= MOST_HOSTS_BY_NAME
        for panel, (name, label, factor) in zip(axes, panels, strict=True):
            for index, host in enumerate(hosts):
                style = curve_style(index) if by_name else {"color": COLOURS[0], "alpha": 0.35}
                times_s, values = _with_gaps(host.t_s, getattr(host, name), factor)
                panel.plot(times_s, values, linewidth=1.1, label=host.host if by_name else None, **style)
            panel.set_ylabel(_power_label(summary) if name == "power_w" else label)
            panel.margins(x=0)
            panel.set_ylim(bottom=None if name == "temperature_c" else 0)
        axes[-1].set_xlabel("run clock (s)")
        if by_name:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=min(len(hosts), 6), handlelength=3.5)

    names = ", ".join(host.host for host in hosts[:MOST_HOSTS_BY_NAME])
    return drawn(0.6 + 1.5 * len(panels), f"Samples of {len(hosts)} hosts over the run: {names}", draw)


def _with_gaps(
    times_s: Sequence[float], values: Sequence[float | None], factor: float
) -> tuple[list[float], list[float]]:
    """Points with a break wherever nothing was sampled for a while; a line across it would be made up."""
    usual_s = median([later - earlier for earlier, later in pairwise(times_s)] or [0.0])
    xs, ys = list(times_s[:1]), [_drawable(values[0], factor)]
    for (before_s, at_s), value in zip(pairwise(times_s), values[1:], strict=True):
        if at_s - before_s > GAP_FACTOR * usual_s:
            xs.append(before_s)
            ys.append(math.nan)
        xs.append(at_s)
        ys.append(_drawable(value, factor))
    return xs, ys


def _drawable(value: float | None, factor: float) -> float:
    return math.nan if value is None else factor * value


def _power_label(summary: Summary) -> str:
    kinds = sorted({source.partition(":")[0] for source in summary.series.power_sources})
    return f"power (W)\n{' and '.join(kinds)}"


def _is_known(host: HostSeries, name: str) -> bool:
    return any(value is not None for value in getattr(host, name))
