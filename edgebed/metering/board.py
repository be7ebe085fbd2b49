"""Boards: cores, clock, power model and radio, read from one YAML file a board.

The power model is the linear one, P = idle + (max - idle) u with u the CPU utilisation of the whole board. Every number
comes with the text that says where it is from; an assumed number says that it is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from edgebed.errors import BadInput, Problem

POWER_KINDS = ("measured", "published", "assumed")


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of computer, as the power model and the energy rule see it.

    Attributes:
        name: short name; the name of its file, and part of the energy's source.
        title: the name that people use.
        cores: CPU cores.
        nominal_hz: clock of a core under load, not overclocked.
        idle_w: power of the whole board with its CPU idle.
        max_w: power of the whole board with all cores busy.
        error_fraction: stated error of the power model, as a fraction of what it says.
        marginal_error_fraction: stated error of what some busy cores add to the idle power, as a fraction of what the
            model says that they add. It is larger: the errors at both ends meet in a small difference.
        error_source: where these errors are from.
        power_kind: ``measured`` (on this board, by its owner), ``published`` or ``assumed``.
        power_source: where the power model is from.
        transmit_w: additional power while the radio sends.
        transmit_error_fraction: stated error of ``transmit_w``, as a fraction of it.
        transmit_source: where it is from.
        relative_speed_ratio: speed at recognition, all cores, relative to a Raspberry Pi 4B; None when unknown.
        relative_speed_source: where it is from.
    """

    name: str
    title: str
    cores: int
    nominal_hz: float
    idle_w: float
    max_w: float
    error_fraction: float
    marginal_error_fraction: float
    error_source: str
    power_kind: str
    power_source: str
    transmit_w: float
    transmit_error_fraction: float
    transmit_source: str
    relative_speed_ratio: float | None
    relative_speed_source: str

    @property
    def span_w(self) -> float:
        """What all cores busy add to the idle power."""
        return self.max_w - self.idle_w

    @property
    def cycles_per_s(self) -> float:
        """CPU cycles a second, all cores together, at the nominal clock."""
        return self.cores * self.nominal_hz

    @property
    def energy_source(self) -> str:
        """The source that every joule computed from this board carries."""
        return f"estimated:cpu-model/{self.name}"

    def power_w(self, utilisation: float) -> float:
        """Power of the whole board at a CPU utilisation of 0..1."""
        return self.idle_w + self.span_w * utilisation


@dataclass(frozen=True, slots=True)
class _Range:
    """What a number may be: low to high, the low end itself excluded."""

    low: float
    high: float
    unit: str
    whole: bool = False
    may_be_null: bool = False
    low_allowed: bool = False

    def problem(self, value: object) -> str | None:
        if value is None and self.may_be_null:
            return None
        kind = "a whole number" if self.whole else "a number"
        allowed = f"{kind} {'from' if self.low_allowed else 'above'} {self.low:g} to {self.high:g} {self.unit}"
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return f"{value!r} is not {allowed}"
        enough = value >= self.low if self.low_allowed else value > self.low
        if not (math.isfinite(value) and enough and value <= self.high):
            return f"{value!r} is out of range; allowed is {allowed}"
        return None


_RANGES = {
    "cores": _Range(0, 1024, "cores", whole=True),
    "nominal_hz": _Range(1e6, 1e11, "Hz"),
    "idle_w": _Range(0, 1e4, "W"),
    "max_w": _Range(0, 1e4, "W"),
    "error_fraction": _Range(0, 1, "(a fraction; no model is exact)"),
    "marginal_error_fraction": _Range(0, 1, "(a fraction; no model is exact)"),
    "transmit_w": _Range(0, 100, "W", low_allowed=True),
    "transmit_error_fraction": _Range(0, 1, "(a fraction; no model is exact)"),
    "relative_speed_ratio": _Range(0, 1000, "times a Raspberry Pi 4B, or null when unknown", may_be_null=True),
}
_KEYS = tuple(each.name for each in fields(Board))


def board_from_dict(data: Mapping[str, object], *, file: str = "", lines: Mapping[str, int] | None = None) -> Board:
    """Make a board from a mapping with exactly `Board`'s fields as its keys.

    Args:
        data: what a board's file, or a plan, contains.
        file: named in the problems.
        lines: the line of each key, for the problems.

    Raises:
        BadInput: with all problems at once.
    """
    problems = [Problem(message, key=key, file=file, line=(lines or {}).get(key)) for key, message in _check(data)]
    if problems:
        raise BadInput(problems)
    return Board(**dict(data))  # type: ignore[arg-type]  # every key and type was checked above


def _check(data: Mapping[str, object]) -> list[tuple[str, str]]:
    found = [(str(key), _unknown(str(key))) for key in data if key not in _KEYS]
    found += [(key, "is missing") for key in _KEYS if key not in data]
    for key in _KEYS:
        if key in data and (message := _check_value(key, data[key])):
            found.append((key, message))
    idle_w, max_w = data.get("idle_w"), data.get("max_w")
    if isinstance(idle_w, (int, float)) and isinstance(max_w, (int, float)) and max_w < idle_w:
        found.append(("max_w", f"{max_w} W is below idle_w, {idle_w} W; a busy board draws more"))
    return found


def _unknown(key: str) -> str:
    near = get_close_matches(key, _KEYS, n=1)
    return "is not a key of a board" + (f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(_KEYS)}")


def _check_value(key: str, value: object) -> str | None:
    if key in _RANGES:
        return _RANGES[key].problem(value)
    if not isinstance(value, str) or not value.strip():
        return f"{value!r} is not a text; say it in words"
    if key == "power_kind" and value not in POWER_KINDS:
        return f"{value!r} is not allowed; one of {', '.join(POWER_KINDS)}"
    if key == "name" and not all(each.isalnum() or each in "-_." for each in value):
        return f"{value!r} may only have letters, digits, '-', '_' and '.'"
    return None


def load_board(path: Path | str) -> Board:
    """Read one board's YAML file.

    Raises:
        BadInput: the file cannot be read, is not YAML, or has problems; all of them at once, with their lines.
    """
    path = Path(path)
    data, lines = _read_yaml(path)
    board = board_from_dict(data, file=str(path), lines=lines)
    if board.name != path.stem:
        message = f"{board.name!r} is not the file's name; rename one of them"
        raise BadInput(Problem(message, key="name", file=str(path), line=lines.get("name")))
    return board


def load_boards(folder: Path | str) -> dict[str, Board]:
    """Read every board of a folder, by name, in the names' order.

    Raises:
        BadInput: with the problems of all files at once; or the folder has no board.
    """
    boards: dict[str, Board] = {}
    problems: list[Problem] = []
    for path in sorted(Path(folder).glob("*.yaml"), key=lambda path: path.stem):
        try:
            boards[path.stem] = load_board(path)
        except BadInput as error:
            problems.extend(error.problems)
    if not boards and not problems:
        problems.append(Problem("there is no board here, no *.yaml file", file=str(folder)))
    if problems:
        raise BadInput(problems)
    return boards


def _read_yaml(path: Path) -> tuple[dict[str, object], dict[str, int]]:
    # Imported here: agents that are handed their board in the plan never pay for YAML.
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there: ten times faster
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=loader)
        data = yaml.load(text, Loader=loader)  # noqa: S506  # a safe one
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(Problem(f"cannot be read: {error}", file=str(path))) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        raise BadInput(Problem(f"is not YAML: {error}", file=str(path), line=line)) from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(data, dict):
        raise BadInput(Problem("is not a mapping of keys to values", file=str(path)))
    lines: dict[str, int] = {}
    repeated: list[Problem] = []
    for key, _ in root.value:
        if key.value in lines:
            message = f"is here twice, first in line {lines[key.value]}"
            repeated.append(Problem(message, key.value, str(path), key.start_mark.line + 1))
        lines.setdefault(key.value, key.start_mark.line + 1)
    if repeated:
        raise BadInput(repeated)
    return data, lines
