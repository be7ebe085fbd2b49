"""Admission: what is let in, what is refused and why, and that the limits hold whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_server.admission import Admission, HeldTask, ServedCell
from edgebed.configuration import Liveness
from edgebed.protocol.front import Session
from edgebed.protocol.liveness import PeerLiveness
from edgebed.protocol.messages import Offer, Refusal, RefusalReason, Role

CHUNK = 10
WINDOW = 4


def session(name: str = "pi-1", instance: str = "i1") -> Session:
    return Session(name.encode(), name, Role.DEVICE, instance, PeerLiveness(Liveness(), 0.0))


def admission(max_tasks: int = 3, max_bytes: int = 100, **cell: object) -> Admission:
    made = Admission(max_tasks, max_bytes, CHUNK, WINDOW)
    made.cell = ServedCell(**({"serial": 7, "ready": True, "channels": 2} | cell))  # type: ignore[arg-type]
    return made


def offer(task_id: str = "t1", size: int = 30, cell: int = 7, channel: int = 0) -> Offer:
    return Offer(task_id, cell, size, 1, channel)


def admitted(made: Admission, *args: object, payload: bytes | None = None) -> HeldTask:
    task = made.offer(session(), offer(*args), payload, 1.0)  # type: ignore[arg-type]
    assert isinstance(task, HeldTask)
    return task


def test_an_offer_with_its_payload_is_complete_at_once() -> None:
    task = admitted(admission(), payload=b"x" * 30)
    assert task.payload is not None
    assert task.payload == b"x" * 30
    assert (task.offered_s, task.received_s) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("cell", "wanted", "payload", "reason"),
    [
        ({"serial": 8}, offer(), None, RefusalReason.WRONG_CELL),
        ({"serial": 0, "ready": False}, offer(), None, RefusalReason.WRONG_CELL),
        ({"ready": False}, offer(), None, RefusalReason.NOT_READY),
        ({"channels": 2}, offer(channel=2), None, RefusalReason.BAD_CHANNEL),
        ({}, offer(size=101), None, RefusalReason.TOO_LARGE),
        ({}, offer(size=30), b"x" * 29, RefusalReason.BAD_PAYLOAD),
        ({}, offer(size=41), b"x" * 41, RefusalReason.TOO_LARGE),
        ({"shaped": True}, offer(size=30), b"x" * 30, RefusalReason.BAD_PAYLOAD),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    cell: dict[str, object], wanted: Offer, payload: bytes | None, reason: RefusalReason
) -> None:
    made = admission(**cell)  # type: ignore[arg-type]
    answer = made.offer(session(), wanted, payload, 1.0)
    assert isinstance(answer, Refusal)
    assert (answer.task_id, answer.reason) == ("t1", reason)
    assert answer.detail
    assert len(made) == made.held_bytes == made.uploading_bytes == 0


def test_a_server_that_ends_refuses_everything() -> None:
    made = admission()
    made.draining = True
    answer = made.offer(session(), offer(), None, 1.0)
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.DRAINING


def test_a_full_queue_refuses_and_takes_again_when_there_is_room() -> None:
    made = admission(max_tasks=2)
    first = admitted(made, "t1")
    admitted(made, "t2")
    full = made.offer(session(), offer("t3"), None, 1.0)
    assert isinstance(full, Refusal)
    assert full.reason is RefusalReason.QUEUE_FULL
    made.release(first)
    assert isinstance(made.offer(session(), offer("t3"), None, 1.0), HeldTask)


def test_bytes_that_are_only_announced_count() -> None:
    made = admission(max_bytes=100)
    admitted(made, "t1", 60)
    full = made.offer(session(), offer("t2", 41), None, 1.0)
    assert isinstance(full, Refusal)
    assert full.reason is RefusalReason.QUEUE_FULL
    assert isinstance(made.offer(session(), offer("t2", 40), None, 1.0), HeldTask)


def test_a_task_that_is_held_is_a_duplicate_for_its_device_alone() -> None:
    made = admission()
    admitted(made, "t1")
    again = made.offer(session(), offer("t1"), None, 1.0)
    assert isinstance(again, Refusal)
    assert again.reason is RefusalReason.DUPLICATE
    assert isinstance(made.offer(session("pi-2"), offer("t1"), None, 1.0), HeldTask)


def test_chunks_in_order_make_the_payload() -> None:
    made = admission()
    task = admitted(made, "t1", 25)
    for index, piece in enumerate((b"a" * 10, b"b" * 10, b"c" * 5)):
        assert task.is_uploading
        assert made.chunk(task, index, memoryview(piece), 2.0 + index) is None
    assert task.payload is not None
    assert task.payload == b"a" * 10 + b"b" * 10 + b"c" * 5
    assert task.received_s == 4.0
    assert made.uploading_bytes == 0


@pytest.mark.parametrize(
    ("index", "size", "says"),
    [(1, 10, "0 was expected"), (0, 9, "9 bytes"), (0, 11, "11 bytes"), (0, 0, "0 bytes")],
)
def test_a_chunk_that_does_not_fit_is_a_problem(index: int, size: int, says: str) -> None:
    made = admission()
    task = admitted(made, "t1", 25)
    problem = made.chunk(task, index, bytes(size), 2.0)
    assert problem is not None
    assert problem[0] is RefusalReason.BAD_PAYLOAD
    assert says in problem[1]
    assert made.uploading_bytes == 25


def test_a_chunk_without_a_credit_is_a_problem() -> None:
    made = admission(shaped=True)
    task = admitted(made, "t1", 25)
    problem = made.chunk(task, 0, bytes(10), 2.0)
    assert problem is not None
    assert "credit" in problem[1]
    task.credited += 1
    assert made.chunk(task, 0, bytes(10), 2.0) is None


def test_credits_follow_the_chunks_by_the_half_window() -> None:
    made = admission(max_bytes=1000)
    task = admitted(made, "t1", 95)
    granted = []
    for index in range(10):
        assert made.chunk(task, index, bytes(10 if index < 9 else 5), 2.0) is None
        granted.append(made.credit_due(task))
    # 10 chunks, 4 credited from the start: the rest comes in twos, and never more than there are chunks.
    assert granted == [0, 2, 0, 2, 0, 2, 0, 0, 0, 0]
    assert task.credited == task.chunks == 10


def test_a_device_that_uses_its_credits_is_never_stuck() -> None:
    for chunks in range(1, 40):
        made = admission(max_bytes=10_000)
        task = admitted(made, "t1", chunks * CHUNK)
        credited, sent = WINDOW, 0
        while sent < chunks:
            assert credited > sent, f"stuck after {sent} of {chunks} chunks"
            assert made.chunk(task, sent, bytes(CHUNK), 2.0) is None
            sent += 1
            credited += made.credit_due(task)
        assert credited >= chunks


def test_releasing_twice_frees_once() -> None:
    made = admission()
    task, other = admitted(made, "t1", 30), admitted(made, "t2", 20)
    made.chunk(task, 0, bytes(10), 2.0)
    made.release(task)
    made.release(task)
    assert (len(made), made.held_bytes, made.uploading_bytes) == (1, 20, 20)
    assert made.get("pi-1", "t1") is None
    assert made.get("pi-1", "t2") is other


class AnyTraffic(RuleBasedStateMachine):
    """Whatever is offered, sent and released: what is counted is what is held, and never beyond the limits."""

    def __init__(self) -> None:
        super().__init__()
        self.made = admission(max_tasks=4, max_bytes=120)
        self.sessions = [session("pi-1"), session("pi-2")]

    @rule(
        device=st.integers(0, 1),
        name=st.integers(0, 5),
        size=st.integers(1, 130),
        whole=st.booleans(),
        shaped=st.booleans(),
    )
    def offers(self, device: int, name: int, size: int, whole: bool, shaped: bool) -> None:
        self.made.cell.shaped = shaped
        payload = bytes(size) if whole else None
        answer = self.made.offer(self.sessions[device], offer(f"t{name}", size), payload, 1.0)
        if isinstance(answer, HeldTask):
            assert self.made.get(answer.session.name, answer.task_id) is answer
            assert (answer.payload is not None) == whole

    @rule(which=st.integers(0, 10), index=st.integers(0, 12), size=st.integers(0, 12), credit=st.integers(0, 2))
    def sends_a_chunk(self, which: int, index: int, size: int, credit: int) -> None:
        uploading = [task for task in self.made if task.is_uploading]
        if uploading:
            task = uploading[which % len(uploading)]
            task.credited += credit
            before = task.received_bytes
            if self.made.chunk(task, index, bytes(size), 2.0) is not None:
                assert task.received_bytes == before

    @rule(which=st.integers(0, 10))
    def sends_the_right_chunk(self, which: int) -> None:
        uploading = [task for task in self.made if task.is_uploading]
        if uploading:
            task = uploading[which % len(uploading)]
            task.credited = task.chunks
            size = min(CHUNK, task.payload_bytes - task.received_bytes)
            assert self.made.chunk(task, len(task.parts), bytes(size), 2.0) is None

    @rule(which=st.integers(0, 10))
    def releases(self, which: int) -> None:
        held = list(self.made)
        if held:
            self.made.release(held[which % len(held)])

    @invariant()
    def counts_are_true(self) -> None:
        held = list(self.made)
        assert len(self.made) == len(held) <= 4
        assert self.made.held_bytes == sum(task.payload_bytes for task in held) <= 120
        assert self.made.uploading_bytes == sum(task.payload_bytes - task.received_bytes for task in held)
        for task in held:
            buffered = sum(len(part) for part in task.parts) + len(task.payload or b"")
            assert buffered == task.received_bytes <= task.payload_bytes


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
