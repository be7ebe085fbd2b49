"""A foreign CSV file, read row by row as a mapping says; every problem with its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput, Problem
from edgebed.types import Outcome
from orchestrator.importing.mapping_file import NUMBERS, OUTCOMES, SITES, ImportMap, Source
from orchestrator.validation import NAME_RULE, is_name, unknown_name

MOST_PROBLEMS = 50
"""More are counted, and not told."""

_TRUE, _FALSE = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")


@dataclass(frozen=True, slots=True)
class ForeignTask:
    """A row of the source.

    Attributes:
        line: where it stands.
        values: of our columns that are known, in our units.
    """

    line: int
    policy: str
    seed: int
    values: dict[str, Any]


def read_source(path: Path, mapping: ImportMap) -> list[ForeignTask]:
    """Read and check a source.

    Raises:
        BadInput: with everything that is wrong, each with its line (of very many, the first).
    """
    problems: list[Problem] = []
    count = 0
    tasks: list[ForeignTask] = []
    for line, cells in _lines(path, mapping):
        task, wrong = _task(line, cells, mapping)
        count += len(wrong)
        problems += [Problem(text, file=str(path), line=line) for text in wrong[: MOST_PROBLEMS - len(problems)]]
        if task is not None and not count:
            tasks.append(task)
    if count > len(problems):
        problems.append(Problem(f"and {count - len(problems)} problems more", file=str(path)))
    if not count and not tasks:
        problems.append(Problem("has no rows below its header", file=str(path)))
    if problems:
        raise BadInput(problems)
    return tasks


def _lines(path: Path, mapping: ImportMap) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Each row by column, or what is wrong with it.

    Raises:
        BadInput: the file cannot be read, or its header lacks columns that the mapping names.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                raise BadInput(f"{path}: is a Parquet file; a CSV file is needed. A run of edgebed needs no import")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=mapping.delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, mapping)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield (
                        reader.line_num,
                        f"has {len(cells)} fields; the header has {len(header)}: is the file cut off?",
                    )
                    continue
                yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise BadInput(Problem(f"is not CSV ({error}): is it cut off?", file=str(path), line=reader.line_num)) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not UTF-8 text: {error}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _check_header(path: Path, header: list[str], mapping: ImportMap) -> None:
    sources = {**mapping.columns, "policy": mapping.policy, "seed": mapping.seed}
    problems = [
        Problem(f"columns.{name}: {unknown_name('column', source.column, header)}", file=str(path), line=1)
        for name, source in sources.items()
        if source.column is not None and source.column not in header
    ]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        problems.append(Problem(f"has the columns {', '.join(twice)} more than once", file=str(path), line=1))
    if problems:
        raise BadInput(problems)


def _task(line: int, cells: dict[str, str] | str, mapping: ImportMap) -> tuple[ForeignTask | None, list[str]]:
    """A row, and what is wrong with it."""
    if isinstance(cells, str):
        return None, [cells]
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, source in {**mapping.columns, "policy": mapping.policy, "seed": mapping.seed}.items():
        try:
            value = _value(name, source, cells)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            continue
        if value is not None:
            values[name] = value
    if not wrong:
        wrong += _row_problems(values, mapping)
    if wrong:
        return None, wrong
    policy, seed = str(values.pop("policy")), int(values.pop("seed"))
    return ForeignTask(line, policy, seed, values), []


def _value(name: str, source: Source, cells: dict[str, str]) -> Any:
    """A value in our unit; None when it is unknown.

    Raises:
        ValueError: it is not one; the text says what is allowed.
    """
    given: Any = source.value if source.column is None else cells[source.column]
    if given == "" or given is None:
        return None
    if source.values is not None:
        if str(given) not in source.values:
            raise ValueError(f"{given!r} has no meaning; values has: {', '.join(source.values)}")
        given = source.values[str(given)]
    if name == "seed" or name in NUMBERS:
        return _number(name, given, source)
    if name == "deadline_met":
        return _truth(given)
    return str(given)


def _number(name: str, given: Any, source: Source) -> int | float:
    try:
        number = float(given) * source.scale + source.offset
    except ValueError:
        raise ValueError(f"{given!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{given!r} is not finite; leave the field empty where it is unknown")
    if number < 0:
        raise ValueError(f"{number:g} is below 0")
    if name != "seed" and NUMBERS[name] is float:
        return number
    if abs(number - round(number)) > 1e-6 * max(1.0, abs(number)):
        raise ValueError(f"{number:g} is not a whole number")
    return round(number)


def _truth(given: Any) -> bool:
    text = str(given).lower()
    if text not in _TRUE + _FALSE:
        raise ValueError(f"{given!r} is neither true nor false")
    return text in _TRUE


def _row_problems(values: dict[str, Any], mapping: ImportMap) -> list[str]:
    """What does not fit together; also fills in what follows from the rest."""
    wrong = [
        f"{name}: is empty" for name in ("device_id", "arrived_s", "deadline_s", "policy", "seed") if name not in values
    ]
    wrong += [
        f"{name}: {values[name]!r} is not a name; allowed: {NAME_RULE}"
        for name in ("device_id", "policy")
        if name in values and not is_name(str(values[name]))
    ]
    if "outcome" not in values:
        values["outcome"] = Outcome.DONE.value if "latency_s" in values else Outcome.UNKNOWN.value
    if values["outcome"] not in OUTCOMES:
        wrong.append(f"outcome: {values['outcome']!r}; allowed: {', '.join(OUTCOMES)}")
    elif (values["outcome"] == Outcome.DONE) != ("latency_s" in values):
        wrong.append(f"latency_s: known exactly when a task is done; this one is {values['outcome']}")
    wrong += [
        f"{name}: {values[name]!r}; allowed: {', '.join(SITES)}"
        for name in ("site", "requested_site")
        if name in values and values[name] not in SITES
    ]
    if "server" in values and values["server"] not in mapping.edge_servers.names:
        wrong.append(f"server: {unknown_name('server', values['server'], mapping.edge_servers.names)}")
    if values.get("deadline_s") == 0:
        wrong.append("deadline_s: is 0; above 0 is needed")
    if values.get("frames") == 0:
        wrong.append("frames: is 0; at least 1 is needed")
    return wrong
