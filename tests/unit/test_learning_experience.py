"""From rows in any order to transitions in theirs."""

from __future__ import annotations

import numpy as np
import pytest

from edgebed.learning.experience import Experience, Transition
from edgebed.trace.schema import EpochRecord, TaskRecord
from edgebed.types import ObservationSpec

SPEC = ObservationSpec(("pi-1", "pi-2"), ("edge-1",), channels=2)
TASKS = [[1, 1], [0, 1], [1, 0]]
WIDTH = len(SPEC.device_features)
LOCAL, ON_CHANNEL_1 = (0, 0, 0), (1, 0, 1)


def decision(epoch: int, *sites: tuple[int, int, int]) -> EpochRecord:
    observation = np.full(2 * WIDTH + SPEC.server_width, float(epoch + 1))
    action = [float(number) for site in sites for number in (*site, 1.0, 1.0, 1.0)]
    return EpochRecord(
        run_id="r", cell_id="c", epoch=epoch, device_id="", observation=observation.tolist(), action=action
    )


def task(epoch: int, device: str, cost: float | None = 1.0, **changes: object) -> TaskRecord:
    row = TaskRecord(
        run_id="r",
        cell_id="c",
        policy="p",
        seed=1,
        device_id=device,
        task_id=f"c/{device}/{epoch}",
        epoch=epoch,
        backend="hosts",
        attempt=1,
        arrived_s=0.5,
        content_id="x",
        deadline_s=1.0,
        outcome="unknown" if cost is None else "done",
        decision_epoch=epoch,
        decided_by="controller",
        site="device",
        cost=cost,
    )
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def experience(patience_epochs: int = 100) -> Experience:
    return Experience(SPEC, TASKS, patience_epochs)


def all_rows() -> list[EpochRecord | TaskRecord]:
    return [
        decision(0, LOCAL, ON_CHANNEL_1),
        decision(1, ON_CHANNEL_1, LOCAL),
        decision(2, LOCAL, LOCAL),
        decision(3),
        task(0, "pi-1", 1.5),
        task(0, "pi-2", 2.5),
        task(1, "pi-2", 4.0),
        task(2, "pi-1", 0.5),
    ]


def added(rows: list[EpochRecord | TaskRecord], into: Experience) -> list[Transition]:
    found: list[Transition] = []
    for row in rows:
        if isinstance(row, TaskRecord):
            into.add_task(row)
        else:
            into.add_epoch(row)
        found += into.take()
    return found


@pytest.mark.parametrize("shuffle", range(20))
def test_rows_in_any_order_and_twice_give_the_same_transitions(shuffle: int) -> None:
    rows = all_rows() * 2
    order = np.random.default_rng(shuffle).permutation(len(rows))
    found = added([rows[index] for index in order], experience())
    assert [one.epoch for one in found] == [0, 1, 2]
    assert [one.actions.tolist() for one in found] == [[0, 2], [2, 0], [0, 0]]
    assert [one.costs.tolist() for one in found] == [[1.5, 2.5], [0.0, 4.0], [0.5, 0.0]]
    assert [one.follows for one in found] == [False, True, True]
    for one in found:
        assert set(one.observation) == {one.epoch + 1.0, 1.0, 0.0}, "values, present, age"
        assert one.later[0] == one.epoch + 2.0


def test_a_transition_waits_for_its_tasks_and_for_what_follows() -> None:
    into = experience()
    assert added([decision(0, LOCAL, LOCAL), task(0, "pi-1")], into) == []
    assert added([decision(1, LOCAL, LOCAL)], into) == []
    assert [one.epoch for one in added([task(0, "pi-2")], into)] == [0]


def test_an_unknown_outcome_leaves_out_its_epoch_and_breaks_the_chain() -> None:
    rows = all_rows()
    rows[6] = task(1, "pi-2", None)
    found = added(rows, experience())
    assert [(one.epoch, one.follows) for one in found] == [(0, False), (2, False)]


def test_where_a_device_fell_back_its_own_decision_counts() -> None:
    rows = all_rows()
    rows[5] = task(0, "pi-2", 2.5, decided_by="fallback", site="device")
    rows[7] = task(2, "pi-1", 0.5, decided_by="fallback", site="edge", server="edge-1", channel=1)
    assert [one.actions.tolist() for one in added(rows, experience())] == [[0, 0], [2, 0], [2, 0]]


def test_a_cost_belongs_to_the_epoch_that_decided_the_task() -> None:
    rows = all_rows()
    rows[4] = task(0, "pi-1", 1.5, decision_epoch=1)
    assert [one.costs.tolist() for one in added(rows, experience())] == [[0.0, 2.5], [1.5, 4.0], [0.5, 0.0]]


def test_a_lost_device_does_not_hold_up_the_others() -> None:
    rows = [row for row in all_rows() if not (isinstance(row, TaskRecord) and row.device_id == "pi-1")]
    in_time = sorted(rows, key=lambda row: row.epoch)
    assert added(in_time, experience()) == []
    assert [one.epoch for one in added(in_time, experience(patience_epochs=1))] == [1]


def test_rows_of_strangers_are_ignored() -> None:
    into = experience()
    strange = [task(0, "pi-9"), task(99, "pi-1")]
    assert [one.epoch for one in added([*strange, *all_rows()], into)] == [0, 1, 2]
