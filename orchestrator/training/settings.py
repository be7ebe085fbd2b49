"""What a training is told, from a file, from options and from ``--set``, as one plan.

A setting belongs to the scenario, to the learner, or to the training (how it is watched). ``--set n=20`` reaches
whichever has an ``n``; where several have, ``--set scenario.n=20`` says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgebed.errors import BadInput, Problem
from edgebed.learning import learner_class
from edgebed.learning.training_plan import TrainingPlan, TrainingSettings, resolve
from edgebed.simulation.scenarios import make_scenario
from orchestrator.documents import load_document, parse_value

DEFAULT_SEEDS = (0,)
DEFAULT_STEPS = 60_000

_SECTIONS = {"scenario": "scenario_settings", "learner": "learner_settings", "training": "training"}
_KEYS = ("learner", "scenario", "seeds", "steps", "learner_settings", "scenario_settings", "training")
_WRITTEN_BY_TRAININGS = frozenset({"schema_version", "files", "plan_hash"})


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; None where an option was left out.

    Attributes:
        learner: name; None with a file that names it. config: a YAML file, for example a ``training.yaml``.
        changes: the texts of ``--set``.
    """

    learner: str | None = None
    scenario: str | None = None
    seeds: Sequence[int] | None = None
    steps: int | None = None
    config: Path | None = None
    changes: Sequence[str] = field(default=())


def plan_of(request: Request) -> TrainingPlan:
    """The plan: the file's values, over them the options, over them ``--set``.

    Raises:
        BadInput: a name or setting is unknown, ambiguous or out of range; a file that is not one.
        MissingExtra: the learner's packages are not installed.
    """
    data = _of_file(request.config)
    learner = _named("LEARNER", request.learner or data.get("learner"), request.config, "dc_drl")
    scenario = _named("--scenario", request.scenario or data.get("scenario"), request.config, "dc-drl")
    _check_same("learner", request.learner, data.get("learner"), request.config)
    settings = {name: dict(data.get(key) or {}) for name, key in _SECTIONS.items()}
    known = {
        "scenario": _fields(type(make_scenario(scenario, settings["scenario"]).parameters)),
        "learner": _fields(learner_class(learner).spec.config),
        "training": _fields(TrainingSettings),
    }
    for text in request.changes:
        section, name, value = _change(text, known)
        settings[section][name] = value
    try:
        training = msgspec.convert(settings["training"], TrainingSettings)
    except msgspec.ValidationError as error:
        raise BadInput(f"training: {error}; its settings: {', '.join(known['training'])}") from None
    return resolve(
        learner,
        scenario,
        _seeds(request.seeds if request.seeds is not None else data.get("seeds", DEFAULT_SEEDS)),
        _whole("steps", request.steps if request.steps is not None else data.get("steps", DEFAULT_STEPS)),
        settings["learner"],
        settings["scenario"],
        training,
    )


def read_seeds(text: str) -> list[int]:
    """``0,1,2``, ``[0, 1, 2]`` or ``0..4`` as a list.

    Raises:
        BadInput: it is none of these.
    """
    first, dots, last = text.strip().partition("..")
    if dots and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < int(first) + 10_000:
        return list(range(int(first), int(last) + 1))
    parts = [part.strip() for part in text.strip().strip("[]").split(",")]
    if not all(part.isdecimal() for part in parts):
        raise BadInput(f"--seeds {text}: whole numbers from 0 on are needed, as in 0,1,2 or 0..4")
    return [int(part) for part in parts]


def _of_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    document = load_document(path)
    allowed = ", ".join(_KEYS)
    unknown = [key for key in document.data if key not in _KEYS and key not in _WRITTEN_BY_TRAININGS]
    flat = [key for key in _SECTIONS.values() if not isinstance(document.data.get(key) or {}, dict)]
    problems = [
        *document.problems,
        *(document.problem((key,), f"is unknown; allowed: {allowed}") for key in unknown),
        *(document.problem((key,), "must hold `name: value` lines") for key in flat),
    ]
    if problems:
        raise BadInput(problems)
    return document.data


def _named(what: str, name: Any, config: Path | None, example: str) -> str:
    if not isinstance(name, str) or not name:
        where = "" if config is None else f", nor by {config}"
        raise BadInput(f"{what}: is not given{where}; for example {example}")
    return name


def _check_same(what: str, asked: str | None, in_file: Any, config: Path | None) -> None:
    """Settings are those of one learner: another one would not know them."""
    if asked is not None and in_file is not None and asked != in_file:
        raise BadInput(Problem(f"is {in_file}, and {asked} was asked for; leave one out", key=what, file=str(config)))


def _fields(kind: type[Any]) -> tuple[str, ...]:
    names: tuple[str, ...] = kind.__struct_fields__
    return names


def _change(text: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str, str, Any]:
    """Section, name and value of a ``--set``."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise BadInput(f"--set {text}: name=value is needed, for example --set n=20 or --set learner.tau=0.01")
    section, dot, name = key.partition(".")
    if not dot:
        section, name = _section_of(key, known), key
    elif section not in known:
        raise BadInput(f"--set {text}: there is no {section!r}; write {' or '.join(f'{one}.{name}' for one in known)}")
    elif name not in known[section]:
        raise BadInput(f"--set {text}: the {section} has no {name!r}; it has: {', '.join(known[section])}")
    return section, name, parse_value(value, f"--set {text}")


def _section_of(name: str, known: Mapping[str, tuple[str, ...]]) -> str:
    found = [section for section, names in known.items() if name in names]
    if len(found) > 1:
        ways = " or ".join(f"--set {section}.{name}=..." for section in found)
        raise BadInput(f"--set {name}: both the {' and the '.join(found)} have {name!r}; write {ways}")
    if not found:
        all_of_them = "; ".join(f"{section}: {', '.join(names) or 'nothing'}" for section, names in known.items())
        raise BadInput(f"--set {name}: nothing has {name!r}. What can be set: {all_of_them}")
    return found[0]


def _seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, str):
        return read_seeds(seeds)
    if not isinstance(seeds, Sequence):
        seeds = [seeds]
    return [_whole("seeds", seed) for seed in seeds]


def _whole(what: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"{what}: {value!r} is not a whole number")
    return value
