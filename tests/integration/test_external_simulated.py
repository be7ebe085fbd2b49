"""A program outside decides in virtual time: the shipped example and others, real processes and the real socket."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import Liveness
from edgebed.protocol.codec import control_headers
from edgebed.protocol.joint import decision_message
from edgebed.protocol.link import Link
from edgebed.protocol.messages import ControlMessage, Error, ErrorCode, JointObserve, Prepare, Role, Start, Stop
from edgebed.protocol.security import KeyPair, make_key_pair
from edgebed.trace.runs import TABLES
from edgebed.types import Decision
from orchestrator.decider import Decider, is_running
from orchestrator.door import Door, find_door

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EPOCHS = 6
PATIENCE_S = 60.0
MINE = {"name": "mine", "placement": "external"}
M = TypeVar("M", bound=msgspec.Struct)


def begin_run(testbed: Any, **changes: Any) -> None:
    """A simulated run that a program outside is to decide."""
    given = {"backend": "simulated", "policies": [MINE], "epochs": EPOCHS, "fallback_policy": "all_edge"}
    testbed.run(**(given | changes))
    testbed.wait_for(lambda: (testbed.runs / "tiny" / "latest").exists(), "a run folder")


@contextmanager
def program(testbed: Any, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program beside the run, ended whatever happens."""
    command = [sys.executable, *arguments, str(testbed.runs / "tiny" / "latest")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=testbed.environment, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def example(testbed: Any) -> Any:
    return program(testbed, str(ROOT / "examples" / "external_decider.py"))


def digests(run: Path) -> dict[str, str]:
    return {table: hashlib.sha256((run / f"{table}.parquet").read_bytes()).hexdigest() for table in TABLES}


def deciders(testbed: Any) -> dict[int, set[tuple[str, bool]]]:
    """Who decided the tasks of each epoch, and whether that was late."""
    found: dict[int, set[tuple[str, bool]]] = {}
    query = "SELECT decision_epoch, decided_by, list_contains(flags, 'decision_late') FROM tasks"
    for epoch, who, is_late in testbed.sql(query):
        found.setdefault(epoch, set()).add((who, is_late))
    return found


def events(testbed: Any) -> list[tuple[str, ...]]:
    return list(testbed.sql("SELECT kind, detail FROM events ORDER BY t_s, kind"))


BY_PROGRAM, BY_FALLBACK = {("external", False)}, {("fallback", True)}


class Outsider:
    """Comes in as a decider does, but speaks word by word."""

    def __init__(self, testbed: Any, instance: str = "one", keys: KeyPair | None = None) -> None:
        plan = testbed.plan
        found: Door = testbed.wait_for(lambda: find_door(testbed.run_folder, plan), "a door")
        self.door, self.spec = found, plan.cells[0].spec(1, 1)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self.link: Link[ControlMessage] = Link(
            context=self._context,
            address=found.address,
            keys=keys or found.keys,
            name=found.name,
            role=Role.EXTERNAL,
            instance=instance,
            decoder=control_headers,
            clock=MonotonicClock(),
            limits=Liveness(dead_after_s=600.0),
        )
        self.link.register(self._poller)
        self._inbox: list[Any] = []

    def turn(self) -> None:
        self._poller.poll(10)
        self._inbox += [message for message, _ in self.link.receive()]
        self.link.tick(self.link.clock.now_s())

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        give_up_s = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert time.monotonic() < give_up_s, f"{what} never came; there is {self._inbox}"
            self.turn()
        return found

    def hear(self, kind: type[M]) -> M:
        """The next message of a kind; those before it are dropped."""

        def found() -> M | None:
            while self._inbox:
                message = self._inbox.pop(0)
                if isinstance(message, kind):
                    return message
            return None

        heard: M = self.until(found, kind.__name__)
        return heard

    def asked(self, epoch: int) -> JointObserve:
        question = self.hear(JointObserve)
        assert (question.epoch, question.is_last) == (epoch, False)
        return question

    def answer(self, question: JointObserve, **changes: Any) -> None:
        decision = Decision.local(len(self.spec.devices))
        message = decision_message(decision, question.serial, question.epoch, "outsider")
        assert self.link.send(msgspec.structs.replace(message, **changes))

    def answer_rest(self, first: int) -> None:
        for epoch in range(first, EPOCHS):
            self.answer(self.asked(epoch))
        assert self.hear(JointObserve).is_last

    def close(self) -> None:
        self.link.close()
        self._context.destroy(linger=0)


@contextmanager
def outsider(testbed: Any, instance: str = "one", keys: KeyPair | None = None) -> Iterator[Outsider]:
    made = Outsider(testbed, instance, keys)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _same_state(testbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds what the run leaves for programs of its user."""
    monkeypatch.setenv("XDG_STATE_HOME", testbed.environment["XDG_STATE_HOME"])


def test_the_example_decides_and_the_same_seed_gives_the_same_bytes(testbed: Any) -> None:
    found = []
    for _ in range(2):
        begin_run(testbed, policies=["all_local", MINE], seeds=[1, 2], epoch_s=0.6)
        with example(testbed) as process:
            answer = testbed.finish()
            output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert (answer["state"], answer["cells"]) == ("complete", 4)
        assert set(testbed.check_rows()) == {("done", "")}
        decided = testbed.sql("SELECT DISTINCT decided_by, policy_version FROM tasks WHERE policy = 'mine'")
        assert decided == [("external", "balance-1")]
        ends = [f"mine-s{seed} epoch {EPOCHS}: the end, 2 devices present" for seed in (1, 2)]
        lines = output.splitlines()
        assert lines[EPOCHS] == ends[0]
        assert lines[-2:] == [ends[1], f"{2 * EPOCHS} decisions"]
        manifest = {key: value for key, value in testbed.manifest().items() if key != "software"}
        found.append((digests(testbed.run_folder), lines, manifest))
    assert found[0] == found[1]
    taken = "SELECT epoch, decision_compute_s FROM epochs WHERE decided_by = '%s' ORDER BY cell_id, epoch"
    assert testbed.sql(taken % "external") == testbed.sql(taken % "controller"), "as quick as the controller"


def test_the_last_observation_is_in_the_trace_too(testbed: Any) -> None:
    begin_run(testbed)
    with outsider(testbed) as me:
        assert me.hear(Prepare).cell["cell_id"] == "mine-s1"
        assert me.hear(Start).run_clock_s == 0.0
        for epoch in range(EPOCHS):
            me.answer(me.asked(epoch))
        end = me.hear(JointObserve)
        assert (end.epoch, end.is_last) == (EPOCHS, True)
        assert me.hear(Stop).reason == "complete"
        testbed.finish()
    (row,) = testbed.sql(f"SELECT observation FROM epochs WHERE epoch = {EPOCHS}")
    assert row[0] == end.values + end.server
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM)
    assert events(testbed) == []


def test_keys_lie_in_the_state_folder_alone_and_open_this_run_alone(testbed: Any) -> None:
    begin_run(testbed)
    with outsider(testbed, keys=make_key_pair()) as stranger, outsider(testbed) as me:
        question = me.asked(0)
        stranger.turn()
        assert me.door.address.endpoint.startswith("tcp://127.0.0.1:")
        assert [path.name for path in testbed.state.rglob("*.key")] == ["external.key"]
        secret = me.door.keys.secret.encode()
        assert not [path for path in testbed.run_folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
        me.answer(question)
        me.answer_rest(1)
        assert not stranger.link.is_up
        testbed.finish()
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM)


STUCK = textwrap.dedent(
    """
    import signal, sys
    from pathlib import Path
    from edgebed.types import Decision
    from orchestrator.decider import decider_of

    with decider_of(Path(sys.argv[1])) as decider:
        for question in decider:
            if question.observation.epoch == 2:
                print("asked", flush=True)
                signal.pause()
            decider.answer(question, Decision.local(len(question.spec.slots)))
    """
)


def test_a_program_that_dies_costs_its_epoch_and_goes_on_when_it_is_back(testbed: Any) -> None:
    begin_run(testbed)
    with program(testbed, "-c", STUCK) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "asked\n"
        stuck.kill()
        with example(testbed) as process:
            testbed.finish()
            assert process.communicate(timeout=PATIENCE_S)[0].endswith(f"{EPOCHS - 3} decisions\n")
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM) | {2: BY_FALLBACK}
    assert "member_joined" in {kind for kind, _ in events(testbed)}


def test_a_program_that_is_not_back_in_time_is_missing(testbed: Any) -> None:
    begin_run(testbed, timeouts={"task_s": 10.0, "prepare_s": 15.0})
    with program(testbed, "-c", STUCK) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "asked\n"
        stuck.kill()
        assert testbed.finish()["state"] == "complete"
    by_fallback = dict.fromkeys(range(2, EPOCHS), BY_FALLBACK)
    assert deciders(testbed) == dict.fromkeys(range(2), BY_PROGRAM) | by_fallback
    left = ("member_left", '{"member": "external", "role": "external", "reason": "silent"}')
    assert events(testbed) == [left, *[("external_missing", f'{{"epoch": {epoch}}}') for epoch in range(3, EPOCHS)]]


def test_an_invalid_decision_is_refused_as_by_the_controller_and_the_fallback_decides(testbed: Any) -> None:
    begin_run(testbed)
    with outsider(testbed) as me:
        me.answer(me.asked(0), site=[7, 7])
        refused = me.hear(Error)
        assert refused.code is ErrorCode.BAD_MESSAGE
        assert "site" in refused.detail
        question = me.asked(1)
        me.answer(msgspec.structs.replace(question, epoch=0))
        late = me.hear(Error)
        assert (late.code, late.detail) == (ErrorCode.UNEXPECTED, "no decision is open for epoch 0")
        me.link.send(Stop(question.serial, "not mine to say"))
        assert "external external may not send Stop to a controller" in me.hear(Error).detail
        me.answer(question)
        me.answer_rest(2)
        testbed.finish()
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM) | {0: BY_FALLBACK}


def test_an_answer_that_takes_longer_than_the_limit_is_late(testbed: Any) -> None:
    begin_run(testbed, timeouts={"task_s": 10.0, "prepare_s": 6.0})
    with outsider(testbed) as me:
        me.answer(me.asked(0))
        late = me.asked(1)
        question = me.asked(2)
        me.answer(late)
        assert me.hear(Error).detail == "no decision is open for epoch 1"
        me.answer(question)
        me.answer_rest(3)
        testbed.finish()
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM) | {1: BY_FALLBACK}
    assert events(testbed) == []


def test_a_second_program_takes_the_place_of_the_first(testbed: Any) -> None:
    begin_run(testbed)
    with outsider(testbed) as first:
        first.answer(first.asked(0))
        first.asked(1)
        with outsider(testbed, "two") as second:
            second.answer_rest(2)
            testbed.finish()
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM) | {1: BY_FALLBACK}
    assert events(testbed) == [("member_joined", '{"member": "external", "role": "external", "restarted": true}')]


def test_a_program_that_comes_back_by_another_connection_is_asked_again(testbed: Any) -> None:
    begin_run(testbed)
    with outsider(testbed) as lost, outsider(testbed) as me:
        question = lost.asked(0)
        assert me.asked(0) == question
        me.answer(question)
        me.answer_rest(1)
        testbed.finish()
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM)
    assert events(testbed) == []


def test_a_run_whose_program_never_comes_fails_and_says_why(testbed: Any) -> None:
    begin_run(testbed, timeouts={"task_s": 2.0, "prepare_s": 1.0})
    assert testbed.finish(1)["state"] == "failed"
    problem = testbed.manifest()["problems"][0]
    assert problem.startswith("controller: it did not get ready within 1 s; cell mine-s1 waits for the program that ")
    assert "nobody is connected as one" in problem
    assert "cell mine-s1 waits for the program" in testbed.error_file.read_text()
    assert set(testbed.check_rows()) == {("failed", "not_run")}


@pytest.mark.parametrize("asked", [0, 3])
def test_an_interrupted_run_tells_its_program_and_is_resumed(testbed: Any, asked: int) -> None:
    begin_run(testbed)
    with outsider(testbed) as me:
        for epoch in range(asked):
            me.answer(me.asked(epoch))
        me.asked(asked)
        testbed.signal(signal.SIGINT)
        end = me.hear(JointObserve)
        assert (end.epoch, end.is_last) == (asked + 1, True)
        assert me.hear(Stop).reason == "interrupted"
        assert testbed.finish(130)["state"] == "incomplete"
    assert not list(testbed.state.glob("*")), "no key is left"
    rows = testbed.check_rows()
    assert rows["failed", "not_run"] > 0
    testbed.resume()
    with example(testbed) as process:
        assert testbed.finish()["state"] == "complete"
        process.communicate(timeout=PATIENCE_S)
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM)


def test_a_run_that_waits_can_be_interrupted(testbed: Any) -> None:
    begin_run(testbed)
    testbed.wait_for(lambda: "waits for the program" in testbed.error_file.read_text(), "waiting")
    testbed.signal(signal.SIGTERM)
    assert testbed.finish(130)["state"] == "incomplete"
    assert set(testbed.check_rows()) == {("failed", "not_run")}


@dataclass
class Jumping:
    """The real clock, but for the jumps that it is told to make."""

    jumped_s: float = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self.jumped_s

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s)


def test_who_thinks_for_long_is_waited_for(testbed: Any) -> None:
    begin_run(testbed)
    run = testbed.run_folder
    testbed.wait_for(lambda: is_running(run), "a run that goes on")
    clock, lines = Jumping(), []
    with Decider(run, clock) as decider:
        for question in decider:
            clock.jumped_s += 60.0
            lines.append((question.observation.epoch, question.is_last))
            if not question.is_last:
                assert decider.answer(question, Decision.local(len(question.spec.slots)))
    testbed.finish()
    assert lines == [(epoch, epoch == EPOCHS) for epoch in range(EPOCHS + 1)]
    assert deciders(testbed) == dict.fromkeys(range(EPOCHS), BY_PROGRAM)
    assert events(testbed) == []


def test_a_controller_that_is_killed_asks_again_when_it_is_back(testbed: Any) -> None:
    kill = {"kind": "kill", "host": "edge", "program": "controller", "at_s": 0.7}
    begin_run(testbed, epochs=12, faults=[kill])
    with example(testbed) as process:
        testbed.finish()
        lines = process.communicate(timeout=PATIENCE_S)[0].splitlines()
    found = deciders(testbed)
    by_program = [epoch for epoch in range(12) if found[epoch] == BY_PROGRAM]
    assert {0, 1, 11} <= set(by_program)
    assert [found[epoch] for epoch in range(12) if epoch not in by_program]
    asked = [line.split(":")[0] for line in lines[:-2]]
    assert asked == [f"mine-s1 epoch {epoch}" for epoch in by_program]
