"""An experiment on a recorded day: the plan of its policies there, and what of it the record contradicts.

What arrived, when, where and how much it took is the record's; only who decides is the experiment's. So whatever else
it says has to be what was recorded: nothing of the experiment is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from edgebed.errors import BadInput, Problem
from orchestrator.documents import shown
from orchestrator.experiment import Experiment, Setting
from orchestrator.inventory import Host, Inventory
from orchestrator.plan import plan_of
from orchestrator.plan_file import Plan
from orchestrator.replay.planning import replay_name
from orchestrator.replay.source import Source
from orchestrator.validation import raise_problems

_OF_THE_HOST = ("board", "slowdown", "link_rate_bps", "workers", "queue_tasks")
"""What of a host matters for the outcome of a task."""

_DECIDED_ANEW = frozenset({"name", "changes", "placement", "fallback_policy"})
"""Of a setting: its name, where its policies decide, and who decides when nobody does, which never happens here."""

_OF_HOSTS_ONLY = frozenset({"timeouts.prepare_s"})
_ADVICE = "change it, for example with --set, or name another run with --from"


def plan_on_record(experiment: Experiment, source: Source, given: Inventory | None = None) -> Plan:
    """The plan of an experiment's policies on the days of a recorded run.

    Args:
        experiment: for the backend ``replayed``.
        source: the run.
        given: a hosts file, where one was named; it has to be that of the run, whose hosts are in its plan.

    Raises:
        BadInput: with everything of the experiment that the record contradicts; both sides are named. Or one of its
            policies cannot decide on these hosts.
    """
    plan = source.trace.plan
    # Of other devices, epochs or arrivals it would be another plan; so this comes first.
    raise_problems([*_host_problems(experiment, source, given), *_setting_problems(experiment, source)])
    hosts = Inventory(
        devices=tuple(plan.devices),
        edge_servers=tuple(plan.edge_servers),
        controller=plan.controller,
        boards=plan.boards,
        file=plan.hosts_file,
    )
    made = plan_of(replace(experiment, name=replay_name(experiment.name)), hosts)
    raise_problems(list(_task_problems(made, source, experiment.file)))
    return made


def problems_of_replay(experiment: Experiment) -> Iterator[Problem]:
    """What of an experiment cannot be decided on a recorded day, whichever it is."""
    for policy in experiment.policies:
        if policy.learn is not None:
            text = f"{policy.label} learns while it decides, which a record does not allow; run it on hosts"
            yield Problem(text, key="policies", file=experiment.file)
        if any((policy.placement or setting.placement) == "external" for setting in experiment.settings):
            text = f"{policy.label} is decided by a program outside, which a recorded day has no ticks to wait for"
            yield Problem(f"{text}; run on hosts", key="placement", file=experiment.file)


def _host_problems(experiment: Experiment, source: Source, given: Inventory | None) -> Iterator[Problem]:
    plan, where = source.trace.plan, source.trace.run.path
    if experiment.devices not in (None, len(plan.devices)) and given is None:
        text = f"the experiment takes the first {experiment.devices}; {where} recorded {len(plan.devices)}: "
        yield Problem(f"{text}{_names(plan.devices)}; {_ADVICE}", key="devices", file=experiment.file)
    if given is None:
        return
    inventory = given.first(experiment.devices)
    for key, ours, theirs in (
        ("devices", inventory.devices, plan.devices),
        ("edge_servers", inventory.edge_servers, plan.edge_servers),
    ):
        if [host.name for host in ours] != [host.name for host in theirs]:
            text = f"this file has {_names(ours)}; {where} recorded {_names(theirs)}"
            yield Problem(f"{text}; leave out --hosts to take the recorded ones", key=key, file=inventory.file)
            continue
        for one, other in zip(ours, theirs, strict=True):
            yield from _differing_host(one, other, str(where), inventory.file)


def _differing_host(one: Host, other: Host, where: str, file: str) -> Iterator[Problem]:
    for name in _OF_THE_HOST:
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours != theirs:
            text = f"{name} is {ours} in this file; {where} recorded {theirs}; leave out --hosts to take the recorded"
            yield Problem(text, key=one.name, file=file)


def _names(hosts: Sequence[Host]) -> str:
    return ", ".join(host.name for host in hosts) or "none"


def _setting_problems(experiment: Experiment, source: Source) -> Iterator[Problem]:
    where, days = source.trace.run.path, source.days
    recorded = {setting.name: setting for setting in source.trace.plan.settings}
    seeds = list(dict.fromkeys(day.seed for day in days))
    if unknown := [seed for seed in experiment.seeds if seed not in seeds]:
        text = f"the experiment has {_listed(unknown)}; {where} recorded {_listed(seeds)}; {_ADVICE}"
        yield Problem(text, key="seeds", file=experiment.file)
    for setting in experiment.settings:
        if setting.name not in recorded:
            text = f"the experiment has the setting {setting.name}; {where} recorded {', '.join(recorded)}; {_ADVICE}"
            yield Problem(text, key="sweep", file=experiment.file)
            continue
        for key, ours, theirs in _differences(setting, recorded[setting.name]):
            text = f"the experiment has {ours}; {where} recorded {theirs}; {_ADVICE}"
            yield Problem(text, key=key, file=experiment.file)
        there = [day.seed for day in days if day.setting == setting.name]
        if missing := [seed for seed in experiment.seeds if seed in seeds and seed not in there]:
            text = f"the experiment has {_listed(missing)} under the setting {setting.name}; {where} ran none of it"
            yield Problem(f"{text}; {_ADVICE}", key="seeds", file=experiment.file)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _differences(setting: Setting, recorded: Setting) -> Iterator[tuple[str, str, str]]:
    """Keys of an experiment that differ, with both values as texts."""
    ours, theirs = _flat(setting), _flat(recorded)
    for key in dict.fromkeys((*ours, *theirs)):
        if ours.get(key) != theirs.get(key):
            yield key, _text(ours.get(key)), _text(theirs.get(key))


def _flat(setting: Setting) -> dict[str, Any]:
    """A setting by the dotted keys of an experiment."""
    flat: dict[str, Any] = {}
    for key, value in msgspec.to_builtins(setting).items():
        if key in _DECIDED_ANEW:
            continue
        inner = {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, Mapping) else {key: value}
        flat |= inner
    spelled = {"arrivals.deadline_s": "deadline_s", "channels.model": "channel_model"}
    return {spelled.get(key, key): value for key, value in flat.items() if key not in _OF_HOSTS_ONLY}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return f"{len(value)} entries" if len(value) != 1 else "1 entry"
    return "none" if value is None else shown(value)


def _task_problems(plan: Plan, source: Source, file: str) -> Iterator[Problem]:
    """The same keys plan the same tasks; unless another edgebed has recorded them, or foreign files are others now."""
    where = source.trace.run.path
    for own in plan.task_lists:
        for name in own.settings:
            try:
                theirs = source.trace.plan.tasks_of(own.seed, name, own.device)
            except BadInput as error:
                yield Problem(f"{where}: {error}", key="arrivals", file=file)
                continue
            if theirs.sha256 != own.sha256:
                text = f"seed {own.seed}, {own.device}: the experiment plans {own.count} tasks, {where} recorded others"
                text += f" ({theirs.count}), planned by edgebed {source.trace.plan.edgebed}"
                yield Problem(f"{text}; `edgebed replay --mode reevaluate` takes them as they are", "arrivals", file)
