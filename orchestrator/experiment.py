"""An experiment: its file, read, overridden, checked, and multiplied by its sweep. See ``docs/experiments.md``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import ValidationError

from edgebed.errors import BadInput, Problem
from edgebed.policies.files import pack_files
from edgebed.protocol.cells import ChannelSettings, RewardSettings, Timeouts
from edgebed.protocol.messages import MAX_HEADER_BYTES
from orchestrator.documents import Document, KeyPath, Origin, beside, dotted, load_document, parse_value
from orchestrator.experiment_file import ExperimentFile, PlacementName, Registered, spelt_out
from orchestrator.faults.schedule import FaultRule
from orchestrator.stop_rule import StopRule
from orchestrator.sweep import Change, combine
from orchestrator.validation import problems_of, raise_problems
from workloads.arrival_files import settings_from_plain, settings_to_plain
from workloads.arrivals import ArrivalSettings
from workloads.files import pack_workload

TASK_TIMEOUT_DEADLINES = 5


class PlannedPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that is compared.

    Attributes:
        label: what tables call it, unique in the experiment. name: its registered name.
        placement: None takes the setting's.
        options: as hosts get them: files of the user's are named by their checksum, see `workloads.files`.
        learner: registered name of the learner that has trained it; empty when none has.
        learn: how it learns while it decides, ``{kind: online, ...}``; None when it does not.
    """

    label: str
    name: str
    placement: PlacementName | None = None
    options: dict[str, Any] = {}
    learner: str = ""
    learn: dict[str, Any] | None = None


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything of a cell but its policy and seed. One without a sweep, else one for each combination.

    Attributes:
        name: ``base`` without a sweep; part of the names of cells otherwise.
        changes: what the sweep sets, by dotted key.
        workload_options: as hosts get them: files of the user's are named by their checksum, see `workloads.files`.
        arrivals: plain data of `workloads.arrivals`, the deadline and a trace's rows in it.
        faults: what is done to the hosts in each cell.
    """

    name: str
    changes: dict[str, Any]
    workload: str
    workload_options: dict[str, Any]
    arrivals: dict[str, Any]
    placement: PlacementName
    fallback_policy: str
    decide_at: Literal["tick", "arrival"]
    epoch_s: float
    epochs: int
    warm_up_epochs: int
    channels: ChannelSettings
    reward: RewardSettings
    on_refusal: Literal["fail", "local"]
    timeouts: Timeouts
    faults: list[FaultRule] = []

    @property
    def horizon_s(self) -> float:
        """The last instant at which a task can arrive, seconds since the cell's start."""
        return self.epochs * self.epoch_s

    @property
    def arrival_settings(self) -> ArrivalSettings:
        """The arrivals, typed."""
        return settings_from_plain(self.arrivals)


class WorkloadSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workload that needs files: from this they can be packed again, when a run starts or is resumed.

    Attributes:
        options: with paths. folder: absolute, where relative ones start.
    """

    workload: str
    options: dict[str, Any]
    folder: str


class PolicySource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that needs files: from this they can be packed again, when a run starts or is resumed.

    Attributes:
        label: whose it is. name: the policy's registered name.
        options: with paths. folder: absolute, where relative ones start.
    """

    label: str
    name: str
    options: dict[str, Any]
    folder: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment, checked; what is compared under which settings.

    Attributes:
        file: as it was given.
        overrides: the ``--set`` texts that were applied.
        settings: at least one.
        workload_sources, policy_sources: the files that workloads and policies need.
        profile: path of the profile that it is simulated with; empty: what boards and workload state.
        devices: only the first so many of the hosts file take part; None: all.
        stop: when its run ends before the last cell; None: it does not.
    """

    name: str
    policies: tuple[PlannedPolicy, ...]
    seeds: tuple[int, ...]
    order: Literal["blocked_random", "sequential"]
    backend: str
    settings: tuple[Setting, ...]
    file: str = ""
    overrides: tuple[str, ...] = ()
    workload_sources: tuple[WorkloadSource, ...] = ()
    policy_sources: tuple[PolicySource, ...] = ()
    profile: str = ""
    devices: int | None = None
    stop: StopRule | None = None

    def options_here(self, policy: PlannedPolicy) -> dict[str, Any]:
        """A policy's options for this machine, with paths where hosts get checksums."""
        source = next((each for each in self.policy_sources if each.label == policy.label), None)
        if source is None:
            return policy.options
        folder = Path(source.folder)
        return {
            key: beside(folder, value) if isinstance(value, str) else value for key, value in source.options.items()
        }


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file.

    Args:
        path: the file; names of files inside it start at its folder.
        overrides: ``a.b=c`` texts, applied in order; the value is YAML.

    Raises:
        BadInput: with everything that is wrong in the file and the overrides.
    """
    path = Path(path)
    experiment = read_experiment(with_overrides(load_document(path), overrides), path.parent)
    return replace(experiment, overrides=tuple(overrides))


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """A document with ``a.b=c`` texts applied; those that cannot be are among its problems."""
    problems = list(document.problems)
    for text in overrides:
        key, equals, value = text.partition("=")
        source = f"--set {text}"
        path = tuple(key.strip().split("."))
        if not (equals and all(path)):
            problems.append(Problem("expected key=value, for example epochs=10 or reward.energy=0.5", file=source))
            continue
        try:
            document = _spelt_out(document).with_value(path, parse_value(value, source), Origin(source))
        except BadInput as error:
            problems += error.problems
    return replace(document, problems=tuple(problems))


def _spelt_out(document: Document) -> Document:
    """Short forms in their long form, so that ``channels: 2`` has the key ``channels.rate_bps``."""
    return replace(document, data=spelt_out(document.data))


def _with_scenario(document: Document, folder: Path) -> Document:
    """A document with what its scenario says for the keys that it leaves out."""
    if document.data.get("scenario") is None:
        return document
    from orchestrator.experiment_scenario import filled  # here: few experiments have one

    return filled(document, folder)


def read_experiment(document: Document, folder: Path) -> Experiment:
    """The experiment that a document describes.

    Args:
        document: overrides already applied.
        folder: where names of files inside it start.

    Raises:
        BadInput: with everything that is wrong.
    """
    registered = Registered.now()
    combinations, problems = combine(document)
    problems = [*document.problems, *problems]
    settings: list[Setting] = []
    files = _Files(folder)
    file: ExperimentFile | None = None
    for name, changes in combinations.items():
        try:
            changed = _spelt_out(document)
            for change in changes:
                changed = _spelt_out(changed.with_value(change.path, change.value, change.origin))
            changed = _with_scenario(changed, folder)
            file, arrivals = _check(changed, registered, folder)
            setting = _setting(name, changes, file, arrivals)
            settings.append(msgspec.structs.replace(setting, workload_options=files.pack(setting, changed)))
        except BadInput as error:
            problems += error.problems
    raise_problems(problems)
    assert file is not None
    policies, sources = _policies(file, document, folder)
    return Experiment(
        name=file.name,
        policies=policies,
        seeds=tuple(file.seeds),
        order=file.order,
        backend=file.backend,
        profile=beside(folder, file.profile or ""),
        settings=tuple(settings),
        file=document.file,
        workload_sources=tuple(files.sources),
        policy_sources=sources,
        devices=file.devices,
        stop=file.stop.rule(),
    )


def _policies(
    file: ExperimentFile, document: Document, folder: Path
) -> tuple[tuple[PlannedPolicy, ...], tuple[PolicySource, ...]]:
    """The policies as hosts get them, and where the files lie that some of them need.

    Raises:
        BadInput: with everything that is wrong with the files.
    """
    problems: list[Problem] = []
    planned: list[PlannedPolicy] = []
    sources: list[PolicySource] = []
    for index, each in enumerate(file.policies):
        options = each.options
        if file.placement_of(each) != "external":
            try:
                packed = pack_files(each.name, options, folder)
            except BadInput as error:
                problems += [document.problem(("policies", index), problem.message) for problem in error.problems]
                continue
            if packed is not None:
                sources.append(
                    PolicySource(label=each.label, name=each.name, options=options, folder=str(folder.absolute()))
                )
                options = packed.options
        planned.append(
            PlannedPolicy(
                label=each.label,
                name=each.name,
                placement=each.placement,
                options=options,
                learner=each.learner,
                learn=each.learn,
            )
        )
    raise_problems(problems)
    return tuple(planned), tuple(sources)


class _Files:
    """The files of the experiment's workloads, read once each.

    Attributes:
        sources: of the workloads that need any.
    """

    def __init__(self, folder: Path) -> None:
        self.sources: list[WorkloadSource] = []
        self._folder = folder.absolute()
        self._options: dict[str, dict[str, Any]] = {}

    def pack(self, setting: Setting, document: Document) -> dict[str, Any]:
        """A setting's options for hosts.

        Raises:
            BadInput: with everything that is wrong with the files.
        """
        name, options = setting.workload, setting.workload_options
        key = repr((name, options))
        if key not in self._options:
            try:
                packed = pack_workload(name, options, self._folder)
            except BadInput as error:
                raise BadInput(
                    each if each.file else document.problem(("workload",), each.message) for each in error.problems
                ) from None
            if packed is not None:
                self.sources.append(WorkloadSource(workload=name, options=options, folder=str(self._folder)))
            self._options[key] = options if packed is None else packed.options
        return self._options[key]


def _check(document: Document, registered: Registered, folder: Path) -> tuple[ExperimentFile, ArrivalSettings]:
    """One combination of a sweep, or all there is without one.

    Raises:
        BadInput: with everything that is wrong.
    """
    problems: list[Problem] = []
    file = arrivals = None
    context = replace(registered, placement=document.data.get("placement"))
    try:
        file = ExperimentFile.model_validate(document.data, context=context)
        problems += [document.problem(path, text) for path, text in file.disagreements()]
    except ValidationError as error:
        problems += problems_of(error, ExperimentFile, document)
    if isinstance(document.data.get("arrivals"), dict) and "deadline_s" in document.data["arrivals"]:
        problems.append(document.problem(("arrivals", "deadline_s"), "belongs one level up, beside `arrivals:`"))
    try:
        arrivals = _arrivals(document, folder)
    except BadInput as error:
        problems += [_placed(document, problem) for problem in error.problems]
    raise_problems(problems)
    assert file is not None
    assert arrivals is not None
    return file, arrivals


def _arrivals(document: Document, folder: Path) -> ArrivalSettings | None:
    """The arrivals; None when the model has found the keys themselves wrong.

    Raises:
        BadInput: with everything that is wrong.
    """
    given, deadline_s = document.data.get("arrivals"), document.data.get("deadline_s")
    if not isinstance(given, dict):
        return None
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not 0 < deadline_s < math.inf:
        deadline_s = 1.0  # a wrong one is the model's to report, so that here any right one will do
    settings = settings_from_plain({**given, "deadline_s": deadline_s}, folder)
    plain_bytes = len(msgspec.msgpack.encode(settings_to_plain(settings)))
    if plain_bytes > MAX_HEADER_BYTES // 2:  # a cell crosses the wire in one header; the rest of it is small
        text = f"is {plain_bytes} bytes long; at most {MAX_HEADER_BYTES // 2} are sent to a host, split the experiment"
        raise BadInput(Problem(text, "arrivals.trace"))
    return settings


def _placed(document: Document, problem: Problem) -> Problem:
    """A problem that knows its key, with file and line; one of another file stays as it is."""
    if problem.file:
        return problem
    parts = re.findall(r"[^.\[\]]+", problem.key)
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in parts)
    return document.problem(path or ("arrivals",), problem.message)


def _setting(name: str, changes: tuple[Change, ...], file: ExperimentFile, arrivals: ArrivalSettings) -> Setting:
    arrivals = replace(arrivals, deadline_s=file.deadline_s)
    longest_s = max([file.deadline_s, *(row.deadline_s or 0.0 for row in arrivals.trace)])
    return Setting(
        name=name,
        changes={dotted(change.path): change.value for change in changes},
        workload=file.workload.name,
        workload_options=file.workload.options,
        arrivals=settings_to_plain(arrivals),
        placement=file.placement,
        fallback_policy=file.fallback_policy,
        decide_at=file.decide_at,
        epoch_s=file.epoch_s,
        epochs=file.epochs,
        warm_up_epochs=file.warm_up_epochs,
        channels=ChannelSettings(
            count=file.channels.count,
            model=file.channel_model,
            rate_bps=file.channels.rate_bps,
            parameters=file.channels.numbers(file.channel_model),
        ),
        reward=RewardSettings(
            latency=file.reward.latency, energy=file.reward.energy, miss_penalty=file.reward.miss_penalty
        ),
        on_refusal=file.on_refusal,
        timeouts=Timeouts(
            decision_s=file.timeouts.decision_s,
            task_s=file.timeouts.task_s or TASK_TIMEOUT_DEADLINES * longest_s,
            prepare_s=file.timeouts.prepare_s,
        ),
        faults=[each.rule() for each in file.faults],
    )
