"""The keys of an experiment file: types, defaults, bounds. ``docs/experiments.md`` explains each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from edgebed.policies import policy_class, policy_names
from edgebed.policies.base import Policy, read_options
from edgebed.protocol.radio import RadioSettings
from orchestrator.documents import KeyPath
from orchestrator.faults import file as faults_file
from orchestrator.faults.file import FaultChoice
from orchestrator.stop_file import StopChoice
from orchestrator.validation import Name, Strict, unknown_name
from workloads import load_workload, workload_names

PlacementName = Literal["controller", "device", "external"]

Seed = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e12)]


@dataclass(frozen=True, slots=True)
class Registered:
    """The context in which `ExperimentFile` is validated.

    Attributes:
        policies, workloads: the names that a file may use.
        placement: the file's, for policies without their own.
    """

    policies: tuple[str, ...]
    workloads: tuple[str, ...]
    placement: object = None

    @classmethod
    def now(cls) -> Registered:
        """What is installed."""
        return cls(tuple(policy_names()), tuple(workload_names()))


@cache
def policy_kind(name: str) -> type[Policy]:
    """The policy called ``name``, remembered: each look-up reads the entry points of every installed package.

    Raises:
        BadInput: no policy has this name.
    """
    return policy_class(name)


def registered(info: ValidationInfo) -> Registered:
    """The context of a validation."""
    context = info.context
    assert isinstance(context, Registered)
    return context


def check_policy_name(name: str, info: ValidationInfo) -> str:
    """``name``, when a policy has it.

    Raises:
        ValueError: none has; those that exist are named.
    """
    known = registered(info).policies
    if name not in known:
        raise ValueError(unknown_name("policy", name, known))
    return name


class WorkloadChoice(Strict):
    """``workload``: a name, or a name and its options, in ``options`` or beside it."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _exists(self, info: ValidationInfo) -> WorkloadChoice:
        known = registered(info).workloads
        if self.name not in known:
            raise ValueError(unknown_name("workload", self.name, known))
        load_workload(self.name, self.options)  # raises BadInput, a ValueError, on options that it does not have
        return self


LEARNED_POLICY = "network"
"""The registered policy that decides with trained weights, whoever trained them."""


IN_ORDER = {"slots": "in_order"}
"""The mapping of a policy that was trained for other names of the same devices."""


class PolicyChoice(Strict):
    """An entry of ``policies``: a name, or a name with what differs.

    Attributes:
        label: what tables and reports call it; its name by default.
        placement: where it decides; the experiment's by default.
        learner: who trained it, for a policy with ``weights``: there ``name`` may be the learner's.
        learn: ``online``, or a mapping with ``kind: online`` and settings of `edgebed.learning.online_config`.
    """

    name: str
    label: Name = ""
    placement: PlacementName | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    learner: str = ""
    learn: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _label_is_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "label" not in value and isinstance(value.get("name"), str):
            return {**value, "label": value["name"]}
        return value

    @field_validator("learn")
    @classmethod
    def _learns_online(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get("kind") != "online":
            raise ValueError(f"kind is {value.get('kind')!r}; allowed: 'online'")
        if value is not None:
            from edgebed.learning.online_config import read_online_config  # here: few experiments have learners

            read_online_config({key: setting for key, setting in value.items() if key != "kind"})
        return value

    @model_validator(mode="after")
    def _exists(self, info: ValidationInfo) -> PolicyChoice:
        known = registered(info)
        if (self.placement or known.placement) == "external":
            return self  # someone else's program decides: there is nothing here to check it against
        check_policy_name(self.name, info)
        if self.learn is not None and self.name != LEARNED_POLICY:
            raise ValueError(f"`learn` is for policies with `weights`; {self.name} has none")
        if self.learn is not None and self.options.get("mapping", IN_ORDER) != IN_ORDER:
            raise ValueError(f"a policy that learns sees what hosts show; allowed `mapping`: {IN_ORDER} or none")
        kind = policy_kind(self.name)
        read_options(kind.spec, kind.options_type, self.options)  # BadInput, a ValueError, on what it does not have
        return self


PAPER = RadioSettings()
"""What `dc-drl` has."""


class RadioChoice(Strict):
    """``channels.parameters``, for channels that interfere: see `edgebed.protocol.radio`."""

    bandwidth_hz: float = Field(default=PAPER.bandwidth_hz, gt=0, le=1e12)
    transmit_power_w: float = Field(default=PAPER.transmit_power_w, gt=0, le=1e3)
    noise_dbm: float = Field(default=PAPER.noise_dbm, ge=-250, le=50)
    path_loss_exponent: float = Field(default=PAPER.path_loss_exponent, ge=0, le=10)
    half_side_m: int = Field(default=int(PAPER.half_side_m), ge=1, le=100_000)
    position_seed: int = Field(default=int(PAPER.position_seed), ge=0, le=2**32 - 1)


class ChannelChoice(Strict):
    """``channels``: their number, or a mapping."""

    count: int = Field(default=1, ge=1, le=1024)
    rate_bps: NotNegative = 0.0
    parameters: RadioChoice = RadioChoice()

    def numbers(self, model: str) -> dict[str, float]:
        """The parameters: all that ``model`` goes by; of one that goes by none, those that are written."""
        return {key: float(value) for key, value in self.parameters.model_dump(exclude_unset=model != "sinr").items()}


class RewardChoice(Strict):
    """``reward``: what a task costs."""

    latency: NotNegative = 1.0
    energy: NotNegative = 0.0
    miss_penalty: NotNegative = 1.0


class TimeoutChoice(Strict):
    """``timeouts``; ``task_s`` is 5 deadlines unless given."""

    decision_s: Seconds = 0.25
    task_s: Seconds | None = None
    prepare_s: Seconds = 120.0


class ScenarioChoice(Strict):
    """``scenario``: a name, or a name and its parameters, in ``parameters`` or beside it."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class ExperimentFile(Strict):
    """One experiment, as written."""

    name: Name = Field(description="names the folder of its runs")
    workload: WorkloadChoice = Field(description="what is computed, see `edgebed list workloads`")
    scenario: ScenarioChoice | None = Field(default=None, description="whose settings are defaults here: dc-drl, say")
    placement: PlacementName = "controller"
    deadline_s: Seconds = Field(description="seconds that a task may take")
    arrivals: dict[str, Any] = Field(description="how tasks arrive, for example {kind: poisson, rate_per_s: 2}")
    decide_at: Literal["tick", "arrival"] = "tick"
    epoch_s: Seconds = Field(description="seconds between decisions")
    epochs: int = Field(ge=1, le=10_000_000, description="how many decision periods a cell has")
    warm_up_epochs: int = Field(default=1, ge=0)
    policies: list[PolicyChoice] = Field(min_length=1, description="what is compared, see `edgebed list policies`")
    fallback_policy: Annotated[str, AfterValidator(check_policy_name)] = "all_local"
    devices: int | None = Field(default=None, ge=1, le=100_000, description="the first so many of the hosts file; all")
    seeds: list[Seed] = Field(min_length=1, description="a list, for example [1, 2, 3]")
    order: Literal["blocked_random", "sequential"] = "blocked_random"
    channels: ChannelChoice = ChannelChoice()
    channel_model: Literal["none", "share", "sinr"] = "none"
    reward: RewardChoice = RewardChoice()
    backend: Literal["hosts", "simulated", "replayed"] = "hosts"
    profile: str | None = Field(default=None, description="from `edgebed calibrate`, for backends without hosts")
    on_refusal: Literal["fail", "local"] = "fail"
    timeouts: TimeoutChoice = TimeoutChoice()
    stop: StopChoice = StopChoice()
    faults: list[FaultChoice] = Field(default_factory=list, max_length=1000)
    sweep: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        return spelt_out(value) if isinstance(value, dict) else value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: list[int]) -> list[int]:
        twice = sorted({seed for seed in value if value.count(seed) > 1})
        if twice:
            raise ValueError(f"has {', '.join(map(str, twice))} more than once")
        return value

    @field_validator("policies")
    @classmethod
    def _labels_differ(cls, value: list[PolicyChoice]) -> list[PolicyChoice]:
        # Cells are folders, and some file systems take A and a for one.
        labels = [policy.label.lower() for policy in value]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"has {', '.join(twice)} more than once; give each its own `label`")
        return value

    def disagreements(self) -> Iterator[tuple[KeyPath, str]]:
        """Keys that are right by themselves and wrong together, and why."""
        if self.warm_up_epochs >= self.epochs:
            yield ("warm_up_epochs",), f"is {self.warm_up_epochs}; allowed: less than epochs, {self.epochs}"
        if self.channel_model == "share" and not self.channels.rate_bps:
            text = "is needed when channel_model is 'share'; bits a second, more than 0"
            yield ("channels", "rate_bps"), text
        if self.profile is not None and self.backend == "hosts":
            yield ("profile",), f"is only for backends 'simulated' and 'replayed'; the backend is {self.backend!r}"
        if self.stop.half_width is not None and len(self.policies) < 2:
            yield ("stop", "half_width"), "is about pairs of policies; the experiment has one"
        if self.stop.rule() is not None and self.backend == "replayed":
            yield ("stop",), "is for backends 'hosts' and 'simulated'; a recorded day is decided anew as it is"
        for index, policy in enumerate(self.policies):
            placement = self.placement_of(policy)
            if policy.learn is not None and placement != "controller":
                text = f"is for policies in the controller; {policy.label} decides at {placement!r}"
                yield ("policies", index, "learn"), text
            if self.decide_at == "arrival" and placement != "device":
                text = f"'arrival' is for policies that decide on the devices; {policy.label} decides at {placement!r}"
                yield ("decide_at",), text
            if placement != "external":
                allowed = [each.value for each in policy_kind(policy.name).spec.placements]
                if placement not in allowed:
                    text = f"{policy.label} cannot decide at {placement!r}; allowed: {', '.join(allowed)}"
                    yield ("policies", index, "placement"), text

    def placement_of(self, policy: PolicyChoice) -> PlacementName:
        """Where a policy of this file decides."""
        return policy.placement or self.placement


def spelt_out(data: dict[str, Any]) -> dict[str, Any]:
    """A file's data with its short forms in their long form: a bare name, a bare number of channels."""
    long = dict(data)
    if isinstance(long.get("workload"), str | dict):
        long["workload"] = _named_spelt_out(long["workload"], WorkloadChoice, "options")
    if isinstance(long.get("scenario"), str | dict):
        long["scenario"] = _named_spelt_out(long["scenario"], ScenarioChoice, "parameters")
    if isinstance(long.get("policies"), list):
        long["policies"] = [_policy_spelt_out(each) for each in long["policies"]]
    long["faults"] = faults_file.spelt_out(long.get("faults"))
    if isinstance(long.get("channels"), int):
        long["channels"] = {"count": long["channels"]}
    return {key: value for key, value in long.items() if value is not None or key not in _MAY_BE_EMPTY}


def _policy_spelt_out(given: Any) -> Any:
    """A bare name; ``weights`` and ``mapping`` beside the name, which is then the learner's; ``learn: online``."""
    if isinstance(given, str):
        return {"name": given}
    if not isinstance(given, dict):
        return given
    beside = {key: given[key] for key in ("weights", "mapping") if key in given}
    long = {key: value for key, value in given.items() if key not in beside}
    if beside:
        options = given.get("options") or {}
        long["options"] = {**options, **beside} if isinstance(options, dict) else options
        if isinstance(given.get("name"), str) and given["name"] != LEARNED_POLICY:
            long |= {"name": LEARNED_POLICY, "learner": given["name"], "label": given.get("label", given["name"])}
    if isinstance(long.get("learn"), str):
        long["learn"] = {"kind": long["learn"]}
    return long


def _named_spelt_out(given: str | dict[str, Any], kind: type[Strict], inside: str) -> dict[str, Any]:
    """What belongs into one key may stand beside the name: ``{name: onnx_images, model: my.onnx}``."""
    if isinstance(given, str):
        return {"name": given}
    beside = {key: value for key, value in given.items() if key not in kind.model_fields}
    options = given.get(inside) or {}
    if not beside or "name" not in given or not isinstance(options, dict):
        return given
    # What a sweep or --set changes comes beside the name, and counts.
    return {"name": given["name"], inside: options | beside}


# `reward:` with nothing below it is how YAML writes an empty mapping.
_MAY_BE_EMPTY = frozenset({"channels", "reward", "timeouts", "stop", "faults", "sweep", "scenario", "profile"})
