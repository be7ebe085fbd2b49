"""``scenario``: what a scenario says of tasks, channels and prices, as an experiment's defaults on hosts.

A scenario's cycles become frames of the workload. A frame has the bytes that it has, so the scenario's bytes become
bandwidth: the radio is as much narrower as a cycle of work has fewer bytes. ``docs/experiments.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput, Problem
from edgebed.simulation.base import read_settings
from edgebed.simulation.calibrated_parameters import CalibratedParameters
from edgebed.simulation.scenarios import CALIBRATED, scenario_class
from edgebed.simulation.scenarios.dc_drl import DcDrl
from edgebed.simulation.scenarios.dc_drl_parameters import DcDrlParameters
from edgebed.simulation.testbed.profile import read_profile
from orchestrator.documents import Document, KeyPath, Origin, beside, shown
from workloads import load_workload
from workloads.base import Demand

NO_COUNTERPART = {
    "cell-selection": "it is about which base station serves a phone; hosts have one network",
    "ccm": "its policies set each device's clock and transmit power and spend its battery; hosts' policies do not",
    "explaboff": "its sizes and capacities are in abstract units, and its stations take time to switch",
    "meta-rl": "its samples have no time: no arrivals, queues or deadlines",
}
"""Why a scenario cannot be an experiment on hosts, by how its name begins."""

FITS = f"allowed: dc-drl, {CALIBRATED}PROFILE"

AS_HOSTS_ARE = {
    **dict.fromkeys(("device_hz", "server_hz", "server"), "hosts are as fast as they are; edgebed_slowdown slows them"),
    **dict.fromkeys(("local_price", "edge_price"), "hosts have joules for that; see reward.energy"),
    **dict.fromkeys(("energy", "switched_capacitance"), "joules come from each host's meter or board"),
    **dict.fromkeys(("own_positions", "speed_mps"), "hosts stay where they are in all cells"),
    "arrivals": "cycles are drawn uniformly from their range; write `arrivals`",
}
"""Parameters of `dc-drl` that hosts have no use for, and what there is instead."""

RADIO = ("transmit_power_w", "noise_dbm", "path_loss_exponent", "half_side_m", "position_seed")


def filled(document: Document, folder: Path) -> Document:
    """A document with what its scenario says for the keys that it leaves out.

    Args:
        document: short forms in their long form.
        folder: where the name of a profile starts.

    Raises:
        BadInput: the scenario or one of its parameters has no counterpart on hosts.
    """
    given = document.data.get("scenario")
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        return document
    name, parameters = given["name"], given.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadInput(
            document.problem(("scenario", "parameters"), f"is {shown(parameters)}; expected a mapping of keys")
        )
    try:
        defaults = _defaults(name, parameters, document.data, folder)
    except BadInput as error:
        raise BadInput([_placed(document, problem) for problem in error.problems]) from None
    return _with_defaults(document, (), defaults, Origin(f"scenario {name}"))


def _placed(document: Document, problem: Problem) -> Problem:
    """A problem of the scenario with file and line; one of a profile's file stays as it is."""
    below = tuple(problem.key.split(".")) if problem.key else ()
    return (
        problem if problem.file else document.problem(("scenario", *below), problem.message.removeprefix("scenario: "))
    )


def _defaults(name: str, parameters: Mapping[str, Any], data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if name.startswith(CALIBRATED):
        return _of_profile(name.removeprefix(CALIBRATED), parameters, data, folder)
    if name == DcDrl.spec.name:
        return _of_dc_drl(parameters, data)
    scenario_class(name)  # BadInput, when there is none of this name
    why = next((why for begin, why in NO_COUNTERPART.items() if name.startswith(begin)), "it does not say how")
    raise BadInput(f"{name} has no counterpart on hosts: {why}; {FITS}, or leave the key out")


def _demand(data: Mapping[str, Any]) -> Demand:
    """What a frame of the workload asks for; of a wrong workload anything will do, the model reports it."""
    given = data.get("workload")
    name, options = (given.get("name"), given.get("options") or {}) if isinstance(given, dict) else (None, None)
    if isinstance(name, str) and isinstance(options, dict):
        with suppress(BadInput):
            return load_workload(name, options).demand
    return Demand(cycles_per_frame=1e7, bytes_per_frame=1e5)


def _of_dc_drl(parameters: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Qiu et al. 2021: every device has a task an epoch, which is there when the epoch is decided."""
    unused = [key for key in parameters if key in AS_HOSTS_ARE]
    if unused:
        text = "has no counterpart on hosts: {}; leave it out"
        raise BadInput([Problem(text.format(AS_HOSTS_ARE[key]), key=f"parameters.{key}") for key in unused])
    scenario, demand = DcDrl(parameters).parameters, _demand(data)
    if scenario.radio != "sinr" and data.get("channel_model") is None:
        text = f"is {scenario.radio!r}, which edge servers cannot grant; allowed: sinr, or write `channel_model`"
        raise BadInput(Problem(text, key="parameters.radio"))
    return {
        "devices": scenario.n,
        "deadline_s": scenario.deadline_s,
        "epoch_s": scenario.epoch_s,
        "epochs": scenario.steps,
        "arrivals": {
            "kind": "periodic",
            "period_s": scenario.epoch_s,
            "phase_s": scenario.epoch_s,
            "frames": {
                "low": _frames(scenario.cycles_min, demand),
                "high": _frames(scenario.cycles_max, demand),
            },
        },
        "channels": {"count": scenario.channels, "parameters": _radio(scenario, demand)},
        "channel_model": "sinr",
        "reward": _reward(scenario),
    }


def _frames(cycles: float, demand: Demand) -> int:
    """How many frames ask for so much; more than a task can have is the model's to report."""
    return max(1, round(min(cycles / demand.cycles_per_frame, 1e9)))


def _radio(scenario: DcDrlParameters, demand: Demand) -> dict[str, Any]:
    theirs = (scenario.input_min_bytes + scenario.input_max_bytes) / (scenario.cycles_min + scenario.cycles_max)
    ours = demand.bytes_per_frame / demand.cycles_per_frame
    return {
        "bandwidth_hz": float(f"{scenario.bandwidth_hz * ours / theirs:.4g}"),
        **{key: getattr(scenario, key) for key in RADIO},
    }


def _reward(scenario: DcDrlParameters) -> dict[str, float]:
    latency = scenario.delay_price if scenario.cost == "weighted_sum" else 0.0
    return {"latency": latency, "energy": scenario.energy_price, "miss_penalty": scenario.penalty}


def _of_profile(name: str, parameters: Mapping[str, Any], data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The conditions of the runs that a profile was fitted to."""
    if parameters:
        raise BadInput(Problem("a profile has none here; write the experiment's own keys", key="parameters"))
    known = _conditions(Path(beside(folder, name)))
    return {
        "deadline_s": known.deadline_s,
        "epoch_s": known.epoch_s,
        "epochs": known.epochs,
        "arrivals": {
            "kind": "poisson",
            "rate_per_s": known.rate_per_s,
            "frames": {"low": known.frames_low, "high": known.frames_high},
        },
        "channels": {"count": known.channels, "rate_bps": known.channel_rate_bps},
        "channel_model": "share" if known.channel_rate_bps else "none",
        "reward": {
            "latency": known.latency_weight,
            "energy": known.energy_weight,
            "miss_penalty": known.miss_penalty,
        },
        "timeouts": {"task_s": known.task_timeout_s},
        **({"profile": name} if data.get("backend") == "simulated" else {}),
    }


def _conditions(path: Path) -> CalibratedParameters:
    """What a profile says of the runs that it was fitted to, all of it.

    Raises:
        BadInput: it does not, or not all, or something that no run can have.
    """
    given = read_profile(path).source.conditions
    no_conditions = {"n", "speed_range"}
    missing = [key for key in CalibratedParameters.__struct_fields__ if key not in given and key not in no_conditions]
    if missing:
        what = f"conditions its runs were: {', '.join(missing)}" if given else "conditions its runs were"
        raise BadInput(f"{path}: the profile does not say under which {what}; calibrate again, or leave the key out")
    found: CalibratedParameters = read_settings(f"{path}: source.conditions", CalibratedParameters, given)
    return found


def _with_defaults(document: Document, above: KeyPath, defaults: Mapping[str, Any], origin: Origin) -> Document:
    """Every default at its key, unless the document has one there; mappings are gone through."""
    for key, value in defaults.items():
        path = (*above, key)
        there = _at(document.data, path)
        if there is None:
            document = document.with_value(path, value, origin)
        elif isinstance(there, dict) and isinstance(value, dict):
            inside = {"frames": value["frames"]} if key == "arrivals" and _is_own(there) else value
            document = _with_defaults(document, path, inside, origin)
    return document


def _is_own(arrivals: Mapping[str, Any]) -> bool:
    """Arrivals of which the scenario can only say how many frames a task has."""
    return any(arrivals.get(key) is not None for key in ("kind", "period_s", "rate_per_s", "phase_s", "trace"))


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data
