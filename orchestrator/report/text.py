"""Numbers as people read them: three significant digits, units, intervals, and honest words for what is not known."""

from __future__ import annotations

from orchestrator.statistics import Interval, PairedDifference, Relation

NOT_KNOWN = "not known"
MINUS = "\N{MINUS SIGN}"

# Each measure's factor and unit in tables.
UNITS = {"latency_s": (1e3, "ms"), "miss_rate": (100.0, "%"), "cpu_s": (1e3, "ms"), "energy_j": (1.0, "J")}


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, and no more after the point than that."""
    if value is None:
        return NOT_KNOWN
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        text = f"{value:.{digits - 1}e}"
    else:
        whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
        text = f"{value:,.{max(0, digits - whole)}f}" if whole else f"{value:#.{digits}g}"
    return text.replace("-", MINUS)


def milliseconds(value_s: float | None) -> str:
    """Seconds as ``123 ms``."""
    return NOT_KNOWN if value_s is None else f"{number(1e3 * value_s)} ms"


def percent(share: float | None) -> str:
    """A share as ``12.3 %``."""
    return NOT_KNOWN if share is None else f"{number(100 * share)} %"


def mean(interval: Interval | None, measure: str) -> str:
    """The mean in the measure's unit."""
    factor, unit = UNITS[measure]
    return NOT_KNOWN if interval is None else f"{number(factor * interval.mean)} {unit}"


def bounds(interval: Interval | None, measure: str) -> str:
    """The interval's ends in the measure's unit; empty without one."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    factor = UNITS[measure][0]
    return f"[{number(factor * interval.low)}, {number(factor * interval.high)}]"


def difference(found: PairedDifference, measure: str) -> str:
    """A difference with its interval and sign, as ``−12.3 [−20, −4.5] ms``."""
    if found.interval is None:
        return NOT_KNOWN
    factor, unit = UNITS[measure]
    if measure == "miss_rate":
        unit = "points"
    value = factor * found.interval.mean
    sign = "+" if value > 0 else ""
    ends = bounds(found.interval, measure)
    return f"{sign}{number(value)} {ends} {unit}" if ends else f"{sign}{number(value)} {unit}"


RELATION_WORDS = {
    Relation.BELOW: "below",
    Relation.ABOVE: "above",
    Relation.NOT_SEPARATED: "not separated",
    Relation.TOO_FEW_SEEDS: "too few seeds",
}
