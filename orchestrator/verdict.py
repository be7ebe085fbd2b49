"""What a run may be used for: valid, suspect or invalid, with the reasons in sentences. Pure: facts in, verdict out.

``docs/trace.md`` has the thresholds in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgebed.trace.schema import NOT_NEEDED, NOT_RUN
from orchestrator.recognition import IMPROBABLE, Recognition, probability_of_so_few

DOWN_REASONS = frozenset({"device_down", "agent_restarted", "server_lost", "server_unreachable", "lost"})
"""Reasons of tasks that were lost because a program or a host was not there."""

INVALID_DOWN_SHARE = 0.05
INVALID_NOT_RUN_SHARE = 0.05
SUSPECT_UNKNOWN_SHARE = 0.05
SUSPECT_LATE_SHARE = 0.05
SUSPECT_FALLBACK_SHARE = 0.05
SUSPECT_CLOCK_ERROR_S = 0.010
SUSPECT_CLOCK_SHARE = 0.01
SUSPECT_FLAG_SHARE = 0.01
SUSPECT_OTHER_WORK_SHARE = 0.50

_TROUBLE_FLAGS = {
    "throttled": "ran while their host was throttled",
    "under_voltage": "ran while their host had too little voltage",
    "overloaded": "ran while their host was overloaded with other work",
    "wifi_power_save": "ran with Wi-Fi power saving on",
    "clock_suspect": "have stages that do not agree with the clocks' stated error",
}


class Standing(StrEnum):
    """How far a run can be trusted."""

    VALID = "valid"
    SUSPECT = "suspect"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A standing, and the sentences that it rests on; of a valid run only that it was stopped by its own rule."""

    verdict: Standing
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a sealed run.

    Attributes:
        planned: tasks of the plan. rows: of them in the table. unplanned: rows of tasks that the plan does not have.
        reasons: tasks that are not done, by reason.
        decided: tasks for which a decision was executed. late, fallback: of them, decided late, by the fallback policy.
        offloaded: tasks whose up- and downlink are split by clocks. clock_suspect: of them, with a clock error above
            `SUSPECT_CLOCK_ERROR_S`.
        flags: tasks by flag.
        recognition: by site. promised_accuracy: of the model's card, share of frames; None when it is not known.
        other_work: by host, share of its processors' time in the cells that was busy and not with tasks; 0..1.
        restarted: names of programs that were restarted during the run.
        faults: faults that were part of the experiment and were done, by kind.
        faults_missed: those that could not be done.
        incidents: events that speak of a fault in a program, by kind.
        problems: what sealing found damaged or left out.
        source: of a replay: the verdict on the recorded run.
        stopped: how the experiment's own rule has ended it; empty when it has not.
    """

    planned: int
    rows: int
    done: int
    unknown: int
    unplanned: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    decided: int = 0
    late: int = 0
    fallback: int = 0
    offloaded: int = 0
    clock_suspect: int = 0
    flags: Mapping[str, int] = field(default_factory=dict)
    recognition: tuple[Recognition, ...] = ()
    promised_accuracy: float | None = None
    other_work: Mapping[str, float] = field(default_factory=dict)
    restarted: tuple[str, ...] = ()
    faults: Mapping[str, int] = field(default_factory=dict)
    faults_missed: int = 0
    incidents: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    source: Verdict | None = None
    stopped: str = ""

    @property
    def due(self) -> int:
        """Planned tasks, without those of cells that were not needed."""
        return self.planned - self.reasons.get(NOT_NEEDED, 0)

    def count(self, reasons: frozenset[str]) -> int:
        """Tasks that ended for one of these reasons."""
        return sum(count for reason, count in self.reasons.items() if reason in reasons)


def judge(facts: RunFacts) -> Verdict:
    """Judge a run by what is known of it; every reason is given, the grave ones first."""
    grave, slight = tuple(_grave(facts)), tuple(_slight(facts))
    standing = Standing.INVALID if grave else Standing.SUSPECT if slight else Standing.VALID
    stopped = (f"{facts.stopped}.",) if facts.stopped else ()
    return Verdict(standing, grave + slight + stopped)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} tasks ({100 * _share(part, whole):.1f} %)"


def _grave(facts: RunFacts) -> Iterator[str]:
    if facts.rows != facts.planned:
        yield f"The table has {facts.rows} rows for {facts.planned} planned tasks."
    if facts.unplanned:
        yield f"{facts.unplanned} rows are of tasks that the plan does not have."
    if not facts.done:
        yield "Not one task was done."
    not_run, down = facts.count(frozenset({NOT_RUN})), facts.count(DOWN_REASONS)
    if _share(not_run, facts.due) > INVALID_NOT_RUN_SHARE:
        yield f"{_of(not_run, facts.due)} were never run: cells are missing."
    # Where something was broken on purpose, what was lost is what the run is to show.
    if _share(down, facts.due) > INVALID_DOWN_SHARE and not facts.faults:
        yield f"{_of(down, facts.due)} were lost because a host or program was down."
    yield from _of_source(facts, Standing.INVALID)
    if facts.promised_accuracy is not None:
        for site in facts.recognition:
            if probability_of_so_few(site, facts.promised_accuracy) < IMPROBABLE:
                yield (
                    f"At the site '{site.site}' {site.correct} of {site.frames} frames were recognised; if the model "
                    f"is right for {100 * facts.promised_accuracy:.1f} %, as its card says, so few are less likely "
                    f"than {IMPROBABLE:g}, even for frames that come in clips."
                )


def _of_source(facts: RunFacts, standing: Standing) -> Iterator[str]:
    """A replay is no better than the record."""
    if facts.source is not None and facts.source.verdict is standing:
        for reason in facts.source.reasons or ("it does not say why.",):
            yield f"The recorded run is {standing.value}: {reason}"


def _slight(facts: RunFacts) -> Iterator[str]:
    yield from _of_source(facts, Standing.SUSPECT)
    if facts.faults:
        done = ", ".join(f"{kind} {_times(count)}" for kind, count in sorted(facts.faults.items()))
        yield f"Faults were part of the experiment: {done}; compare it only with runs that had the same."
    if facts.faults_missed:
        yield f"Planned faults that could not be done: {facts.faults_missed}; the event 'fault_failed' says why."
    not_run, down = facts.count(frozenset({NOT_RUN})), facts.count(DOWN_REASONS)
    if 0 < _share(not_run, facts.due) <= INVALID_NOT_RUN_SHARE:
        yield f"{_of(not_run, facts.due)} were never run."
    if down and (facts.faults or _share(down, facts.due) <= INVALID_DOWN_SHARE):
        yield f"{_of(down, facts.due)} were lost because a host or program was down."
    if facts.restarted:
        yield f"Restarted during the run: {', '.join(facts.restarted)}."
    for kind, count in sorted(facts.incidents.items()):
        yield f"The event '{kind}' was reported {_times(count)}."
    if _share(facts.unknown, facts.due) > SUSPECT_UNKNOWN_SHARE:
        yield f"The outcome of {_of(facts.unknown, facts.due)} is unknown."
    yield from _slight_decisions(facts)
    if _share(facts.clock_suspect, facts.offloaded) > SUSPECT_CLOCK_SHARE:
        yield (
            f"The clocks' error is above {1000 * SUSPECT_CLOCK_ERROR_S:.0f} ms for {facts.clock_suspect} of "
            f"{facts.offloaded} offloaded tasks: only the sum of up- and downlink can be relied on."
        )
    for flag, words in _TROUBLE_FLAGS.items():
        if _share(facts.flags.get(flag, 0), facts.due) > SUSPECT_FLAG_SHARE:
            yield f"{_of(facts.flags[flag], facts.due)} {words}."
    disturbed = {host: share for host, share in facts.other_work.items() if share > SUSPECT_OTHER_WORK_SHARE}
    if disturbed:
        most = f"{100 * max(disturbed.values()):.0f} %"
        yield f"Other work kept up to {most} of the processors of {', '.join(disturbed)} busy; measured times suffer."
    yield from (f"While sealing: {problem}." for problem in facts.problems)


def _slight_decisions(facts: RunFacts) -> Iterator[str]:
    if _share(facts.late, facts.decided) > SUSPECT_LATE_SHARE:
        yield f"The decision came late for {_of(facts.late, facts.decided)}."
    if _share(facts.fallback, facts.decided) > SUSPECT_FALLBACK_SHARE:
        yield f"The fallback policy decided for {_of(facts.fallback, facts.decided)}, not the one that is compared."


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
