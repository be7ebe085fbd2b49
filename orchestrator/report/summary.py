"""The numbers of a run, as HTML report, terminal and ``--json`` show them: computed once, from its files alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import msgspec

from edgebed.trace.manifest import Manifest
from edgebed.trace.runs import Run
from edgebed.trace.schema import STAGES
from orchestrator.measures import SeedMeasures, ask, counted_tasks, seed_measures
from orchestrator.provenance import VIRTUAL
from orchestrator.replay.text import replay_lines
from orchestrator.report.series import Series, read_series
from orchestrator.statistics import Interval, PairedDifference, paired_difference, t_interval

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COMPARED = ("latency_s", "miss_rate", "energy_j")
"""Measures of which policies are compared in pairs."""

PARTS_OF_LATENCY = ("decision_s", *STAGES)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Frames recognised at a site, and how many of them correctly."""

    site: str
    frames: int
    correct: int

    @property
    def share(self) -> float:
        """Correct frames per frame."""
        return self.correct / self.frames


@dataclass(frozen=True, slots=True)
class PolicySummary:
    """One policy under one setting, over its seeds and the tasks that count.

    Attributes:
        name: policy, with the setting where a run has several.
        measures: by the names of `orchestrator.measures.MEASURES`; None where nothing is known.
        by_seed: the same, seed by seed.
        p50_s, p95_s, p99_s: latency of done tasks of all seeds together; None when none is done.
        parts_s: each of `PARTS_OF_LATENCY`, as mean over the seeds' means over done tasks, so that they add up to the
            mean latency; empty when none is done.
        device_energy_j, server_energy_j: likewise, over done tasks for which both are known.
        energy_known: share of done tasks whose energy is known.
        energy_sources: every source that occurs.
    """

    policy: str
    setting: str
    name: str
    seeds: tuple[int, ...]
    tasks: int
    done: int
    failed: int
    unknown: int
    measures: dict[str, Interval | None]
    by_seed: dict[str, dict[int, float | None]]
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    missed: int
    parts_s: dict[str, float]
    device_energy_j: float | None
    server_energy_j: float | None
    energy_known: float
    energy_sources: tuple[str, ...]
    accuracy: tuple[Accuracy, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two policies under one setting: ``first - second``, by measure."""

    first: str
    second: str
    setting: str
    differences: dict[str, PairedDifference]


@dataclass(frozen=True, slots=True)
class FlagCount:
    """How many of all tasks have a flag; those of warm-up included."""

    flag: str
    tasks: int
    share: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a report says about one run.

    Attributes:
        path: the last two parts of the run's folder, which `edgebed.trace.runs.find_run` finds.
        counts: of all tasks, by outcome, and ``planned``.
        reasons: tasks that were not done, by outcome and reason, the most frequent first.
        left_out: tasks that do not count: of warm-up, never run, and not needed.
        notices: what a reader must know before any number: emulated, estimated, simulated, one seed.
        energy_label: ``estimated: ...`` or ``measured: ...``; empty when no energy is known.
    """

    path: str
    manifest: Manifest
    counts: dict[str, int]
    reasons: tuple[tuple[str, str, int], ...]
    left_out: dict[str, int]
    policies: tuple[PolicySummary, ...]
    comparisons: tuple[Comparison, ...]
    flags: tuple[FlagCount, ...]
    deadlines_s: tuple[float, ...]
    energy_label: str
    notices: tuple[str, ...]
    series: Series

    def to_plain(self) -> dict[str, Any]:
        """As plain data for ``--json``; without the series, which are in the tables."""
        kept = {name: getattr(self, name) for name in self.__slots__ if name not in ("series", "manifest")}
        kept |= {
            "state": self.manifest.state,
            "verdict": self.manifest.verdict,
            "verdict_reasons": self.manifest.reasons,
        }
        plain: dict[str, Any] = msgspec.to_builtins(kept, str_keys=True)
        for row, comparison in zip(plain["comparisons"], self.comparisons, strict=True):
            for measure, difference in comparison.differences.items():
                row["differences"][measure]["relation"] = str(difference.relation)
        return plain


def summarise(run: Run) -> Summary:
    """Read a sealed run and compute everything that its report shows.

    Raises:
        BadInput: the run has not been sealed.
        MissingExtra: DuckDB is not installed.
    """
    with counted_tasks(run) as connection:
        counts = _counts(connection)
        policies = _policies(connection, run.plan)
        flags = _flags(connection, counts["planned"])
        sources = sorted({source for policy in policies for source in policy.energy_sources})
        energy_label = _energy_label(sources, policies)
        return Summary(
            path=f"{run.path.parent.name}/{run.path.name}",
            manifest=run.manifest,
            counts=counts,
            reasons=tuple(ask(connection, _REASONS).rows),
            left_out=_left_out(connection),
            policies=policies,
            comparisons=tuple(_comparisons(policies)),
            flags=flags,
            deadlines_s=tuple(
                row[0] for row in ask(connection, "SELECT DISTINCT deadline_s FROM counted ORDER BY 1").rows
            ),
            energy_label=energy_label,
            notices=(
                *replay_lines(run.manifest.replay),
                *_profile_notice(run),
                *_notices(policies, flags, energy_label, _virtual(run)),
            ),
            series=read_series(connection, run.manifest.hosts),
        )


_REASONS = """
SELECT outcome, coalesce(reason, ''), count(*) FROM tasks WHERE outcome <> 'done'
GROUP BY ALL ORDER BY count(*) DESC, outcome, coalesce(reason, '')
"""


def _counts(connection: DuckDBPyConnection) -> dict[str, int]:
    counts = {"planned": 0, "done": 0, "failed": 0, "unknown": 0}
    counts |= dict(ask(connection, "SELECT outcome, count(*) FROM tasks GROUP BY outcome").rows)
    counts["planned"] = counts["done"] + counts["failed"] + counts["unknown"]
    return counts


def _left_out(connection: DuckDBPyConnection) -> dict[str, int]:
    (row,) = ask(
        connection,
        "SELECT count(*) FILTER (list_contains(flags, 'warm_up')) AS warm_up, "
        "count(*) FILTER (reason = 'not_run') AS not_run, count(*) FILTER (reason = 'not_needed') AS not_needed, "
        "count(*) FILTER (list_contains(flags, 'unplanned')) AS unplanned FROM tasks",
    ).records()
    return {name: count for name, count in row.items() if count}


_POOLED = """
SELECT policy, setting,
       quantile_cont(latency_s, 0.5) FILTER (outcome = 'done') AS p50_s,
       quantile_cont(latency_s, 0.95) FILTER (outcome = 'done') AS p95_s,
       quantile_cont(latency_s, 0.99) FILTER (outcome = 'done') AS p99_s,
       count(*) FILTER (outcome = 'done' AND NOT deadline_met) AS missed,
       coalesce(avg((energy_j IS NOT NULL)::INT) FILTER (outcome = 'done'), 0) AS energy_known,
       list(DISTINCT energy_source ORDER BY energy_source) FILTER (energy_source IS NOT NULL) AS energy_sources
FROM counted GROUP BY policy, setting
"""

_MEAN_OVER_SEEDS = (*PARTS_OF_LATENCY, "device_energy_j", "server_energy_j")

_MEANS = f"""
SELECT policy, setting, {", ".join(f"avg({name}) AS {name}" for name in _MEAN_OVER_SEEDS)}
FROM (SELECT policy, setting, seed,
             {", ".join(f"avg({part}) AS {part}" for part in PARTS_OF_LATENCY)},
             avg(device_energy_j) FILTER (energy_j IS NOT NULL) AS device_energy_j,
             avg(server_energy_j) FILTER (energy_j IS NOT NULL) AS server_energy_j
      FROM counted WHERE outcome = 'done' GROUP BY policy, setting, seed)
GROUP BY policy, setting
"""  # noqa: S608  (built of constants)

_ACCURACY = """
SELECT policy, setting, site, sum(frames)::BIGINT, sum(correct)::BIGINT FROM counted
WHERE outcome = 'done' AND correct IS NOT NULL AND frames > 0 GROUP BY policy, setting, site ORDER BY ALL
"""


def _policies(connection: DuckDBPyConnection, plan: dict[str, Any]) -> tuple[PolicySummary, ...]:
    seeds: dict[tuple[str, str], list[SeedMeasures]] = defaultdict(list)
    for one in seed_measures(connection):
        seeds[one.policy, one.setting].append(one)
    pooled = {(row["policy"], row["setting"]): row for row in ask(connection, _POOLED).records()}
    for row in ask(connection, _MEANS).records():
        pooled[row["policy"], row["setting"]] |= row
    accuracy: dict[tuple[str, str], list[Accuracy]] = defaultdict(list)
    for policy, setting, *found in ask(connection, _ACCURACY).rows:
        accuracy[policy, setting].append(Accuracy(*found))
    has_settings = len({setting for _, setting in seeds}) > 1
    keys = sorted(
        seeds, key=lambda key: (_place(plan, "settings", "name", key[1]), _place(plan, "policies", "label", key[0]))
    )
    return tuple(_policy(seeds[key], pooled[key], tuple(accuracy[key]), has_settings) for key in keys)


def _place(plan: dict[str, Any], key: str, name_key: str, name: str) -> tuple[int, str]:
    """Where the plan has a name; what it does not have comes last, by name."""
    listed = [entry.get(name_key) for entry in plan.get(key) or [] if isinstance(entry, dict)]
    return (listed.index(name) if name in listed else len(listed), name)


def _policy(
    seeds: Sequence[SeedMeasures], pooled: dict[str, Any], accuracy: tuple[Accuracy, ...], has_settings: bool
) -> PolicySummary:
    policy, setting = seeds[0].policy, seeds[0].setting
    by_seed = {name: {one.seed: one.measures[name] for one in seeds} for name in seeds[0].measures}
    parts = {part: pooled[part] for part in PARTS_OF_LATENCY if pooled.get(part) is not None}
    return PolicySummary(
        policy=policy,
        setting=setting,
        name=f"{policy} · {setting}" if has_settings else policy,
        seeds=tuple(one.seed for one in seeds),
        tasks=sum(one.tasks for one in seeds),
        done=sum(one.done for one in seeds),
        failed=sum(one.failed for one in seeds),
        unknown=sum(one.unknown for one in seeds),
        measures={name: t_interval(_known(values.values())) for name, values in by_seed.items()},
        by_seed=by_seed,
        parts_s=parts,
        accuracy=accuracy,
        energy_sources=tuple(pooled["energy_sources"] or ()),
        device_energy_j=pooled.get("device_energy_j"),
        server_energy_j=pooled.get("server_energy_j"),
        **{name: pooled[name] for name in ("p50_s", "p95_s", "p99_s", "missed", "energy_known")},
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _comparisons(policies: Sequence[PolicySummary]) -> Iterable[Comparison]:
    for first, second in combinations(policies, 2):
        if first.setting == second.setting:
            yield Comparison(
                first.name,
                second.name,
                first.setting,
                {name: paired_difference(first.by_seed[name], second.by_seed[name]) for name in COMPARED},
            )


def _flags(connection: DuckDBPyConnection, planned: int) -> tuple[FlagCount, ...]:
    rows = ask(
        connection,
        "SELECT flag, count(*) AS n FROM (SELECT unnest(flags) AS flag FROM tasks) GROUP BY flag ORDER BY n DESC, flag",
    ).rows
    return tuple(FlagCount(flag, count, count / planned) for flag, count in rows)


def _energy_label(sources: Sequence[str], policies: Sequence[PolicySummary]) -> str:
    return "" if all(policy.energy_known == 0 for policy in policies) else sources_label(sources)


def sources_label(sources: Sequence[str]) -> str:
    """One label for amounts from several sources; empty without any.

    ``estimated: cpu-model (pi-3b, pi-4b)``, or ``partly estimated: cpu-model (pi-4b); partly measured: ina219``.
    """
    subjects: dict[str, dict[str, list[str]]] = {}
    for part in sorted({part for source in sources for part in source.split("+") if part}):
        kind, _, rest = part.partition(":")
        name, _, subject = rest.partition("/")
        subjects.setdefault(kind, {}).setdefault(name, []).extend([subject] if subject else [])
    partly = "partly " if len(subjects) > 1 else ""
    return "; ".join(f"{partly}{kind}: {_names(found)}" for kind, found in subjects.items())


def _names(found: dict[str, list[str]]) -> str:
    return ", ".join(name + (f" ({', '.join(each)})" if each else "") for name, each in found.items())


_NOTICES_OF_FLAGS = {
    "emulated": "Emulated boards: {share} of the tasks ran on hosts that stand for others, slowed down or virtual. "
    "Their times are those of the emulation, not of the boards.",
    "simulated": "Simulated: {share} of the tasks were computed by a model; nothing was executed.",
    "recorded": "Replayed: {share} of the tasks have outcomes recorded in an earlier run.",
    "recomputed": "Recomputed: {share} of the tasks have outcomes computed from an earlier run's.",
    "modelled": "Modelled: {share} of the tasks have stages that a model filled in.",
}


def _profile_notice(run: Run) -> list[str]:
    """What a simulated run was simulated with; of other runs there is nothing to say."""
    profile = run.manifest.profile
    if not profile:
        return []
    return [f"Profile ({profile.get('kind', '')}): {profile.get('text', '') or profile.get('file', '')}."]


def _virtual(run: Run) -> list[str]:
    return [name for name, facts in run.manifest.hosts.items() if VIRTUAL in facts]


def _notices(
    policies: Sequence[PolicySummary], flags: Sequence[FlagCount], energy_label: str, virtual: Sequence[str]
) -> Iterable[str]:
    if virtual:
        yield (
            f"Virtual hosts: {', '.join(virtual)} are hosts of `edgebed lab`. Their processors are one machine's and "
            "their sensors follow a script: a rehearsal, in which no joule and no temperature of a board was measured."
        )
    for flag in flags:
        if flag.flag in _NOTICES_OF_FLAGS:
            yield _NOTICES_OF_FLAGS[flag.flag].format(share=f"{100 * flag.share:.3g} %")
    if energy_label.startswith("estimated"):
        yield f"Energy is {energy_label}. No sensor saw it; the error stated is the model's own."
    elif energy_label.startswith("partly"):
        yield f"Energy is {energy_label}. A sum of both is no measurement; what is estimated has the model's own error."
    if not energy_label:
        yield "Energy is not known: no task has one."
    if policies and max(len(policy.seeds) for policy in policies) == 1:
        yield "One seed only: means have no interval, and policies cannot be told apart."
    if not policies:
        yield "No task counts: there is nothing to compare."
