from __future__ import annotations

import pytest

from device_agent.content import Clip
from device_agent.task import Part, PartState, Task, divide, joined_predictions, parts_of, slower_part
from edgebed.types import Outcome, Site, SlotDecision
from workloads.arrivals import PlannedTask


@pytest.mark.parametrize(
    ("site", "fraction", "frames", "edge_frames"),
    [
        (Site.DEVICE, 1.0, 3, 0),
        (Site.EDGE, 0.0, 3, 3),
        (Site.SPLIT, 0.5, 4, 2),
        (Site.SPLIT, 0.5, 3, 2),
        (Site.SPLIT, 0.1, 3, 0),
        (Site.SPLIT, 0.9, 3, 3),
        (Site.SPLIT, 0.0, 3, 0),
        (Site.SPLIT, 1.0, 1, 1),
    ],
)
def test_a_share_becomes_whole_frames(site: Site, fraction: float, frames: int, edge_frames: int) -> None:
    decision = SlotDecision(site, server=1, channel=2, edge_fraction=fraction)
    assert divide(decision, frames) == edge_frames
    parts = parts_of(decision, frames, 5.0)
    assert sum(part.frames for part in parts) == frames
    assert [part.first for part in parts] == ([0] if len(parts) == 1 else [0, frames - edge_frames])
    assert all((part.server, part.channel) == (1, 2) for part in parts if part.site is Site.EDGE)
    assert all(part.since_s == 5.0 and part.state is PartState.OPEN for part in parts)


OPEN, DONE, FAILED, UNKNOWN = PartState.OPEN, PartState.DONE, PartState.FAILED, PartState.UNKNOWN


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ([], None),
        ([OPEN], None),
        ([DONE], Outcome.DONE),
        ([DONE, OPEN], None),
        ([DONE, DONE], Outcome.DONE),
        ([OPEN, FAILED], Outcome.FAILED),
        ([UNKNOWN, FAILED], Outcome.FAILED),
        ([OPEN, UNKNOWN], Outcome.UNKNOWN),
        ([DONE, UNKNOWN], Outcome.UNKNOWN),
    ],
)
def test_what_parts_mean_for_their_task(states: list[PartState], outcome: Outcome | None) -> None:
    planned = PlannedTask(0, "content", 0.0, 4, 1.0, 0)
    task = Task(planned, "task", Clip("content", 0, (1, 1, 1, 1), ()), 0.0)
    task.parts = [Part(2 * number, 2, Site.DEVICE, 0.0, state=state) for number, state in enumerate(states)]
    judged = task.judge()
    assert (None if judged is None else judged[0]) is outcome


def test_parts_are_put_together_again() -> None:
    first, last = Part(0, 2, Site.DEVICE, 0.0), Part(2, 1, Site.EDGE, 0.0)
    first.predicted, first.finished_s = [1, 2], 5.0
    last.predicted, last.finished_s = [3], 4.0
    assert joined_predictions([last, first]) == [1, 2, 3]
    assert slower_part([last, first]) is first
