"""Executors: the same answers wherever cells run, whatever dies. Ray's have the same tests in tests/learning."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput, WorkFailed
from edgebed.learning.base import Executor, TrainingTask
from edgebed.learning.cross_entropy import CrossEntropyConfig
from edgebed.learning.executor import check_name, make_executor
from edgebed.learning.executor import recovering as recovering_module
from edgebed.learning.executor.plain_data import decode, encode
from edgebed.learning.executor.processes import ProcessExecutor
from edgebed.learning.executor.recovering import MAX_DEATHS, RecoveringExecutor
from edgebed.learning.testing import CountingCell


def task(**parameters: Any) -> TrainingTask:
    return TrainingTask("cross_entropy", CrossEntropyConfig(), "dc-drl", parameters, (0,), 10)


def added(executor: Executor, *numbers: float) -> list[dict[str, Any]]:
    answers = executor.call("add", [{"numbers": np.array(numbers) + index} for index in range(executor.cells)])
    return [{key: value for key, value in answer.items() if key not in ("pid", "seen")} for answer in answers]


@pytest.fixture(params=["inline", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with make_executor(request.param) as made:
        made.start(CountingCell, task(), 3)
        yield made


@pytest.fixture
def processes() -> Iterator[ProcessExecutor]:
    with ProcessExecutor() as made:
        made.start(CountingCell, task(), 2)
        yield made


def expected(*calls: tuple[float, ...]) -> list[list[dict[str, Any]]]:
    with make_executor("inline") as reference:
        reference.start(CountingCell, task(), 3)
        return [added(reference, *numbers) for numbers in calls]


def test_answers_come_in_the_cells_order_and_are_the_same_everywhere(executor: Executor) -> None:
    found = [added(executor, 1.0, 2.0), added(executor, 3.0)]
    assert found == expected((1.0, 2.0), (3.0,))
    assert [answer["cell"] for answer in found[0]] == [0, 1, 2]
    assert executor.cells == 3


def test_a_cell_s_arrays_are_its_own(executor: Executor) -> None:
    numbers = np.array([1.0, 2.0])
    answers = executor.call_all("add", numbers=numbers)
    assert numbers.tolist() == [1.0, 2.0]
    assert answers[0]["seen"].tolist() == [-1.0, -1.0]
    answers[0]["seen"][:] = 5.0  # writable
    assert answers[1]["seen"].tolist() == [-1.0, -1.0]


def test_states_go_back_in(executor: Executor) -> None:
    added(executor, 1.0)
    states = executor.states()
    first = added(executor, 2.0)
    executor.load_states(states)
    assert added(executor, 2.0) == first


def test_processes_are_as_many_as_cells_and_end(processes: ProcessExecutor) -> None:
    pids = [answer["pid"] for answer in processes.call_all("add", numbers=np.ones(1))]
    assert len({*pids, os.getpid()}) == 3
    assert processes.pids == pids
    processes.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    processes.close()


class TestDeath:
    @pytest.mark.parametrize("with_snapshot", [False, True])
    def test_between_calls_changes_nothing(self, processes: ProcessExecutor, with_snapshot: bool) -> None:
        found = [added(processes, 1.0)]
        if with_snapshot:
            processes.states()
        found.append(added(processes, 2.0))
        pid = processes.pids[1]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        found.append(added(processes, 3.0))
        reference = expected((1.0,), (2.0,), (3.0,))
        assert found == [answers[:2] for answers in reference]
        assert processes.restarts == 1
        assert processes.pids[1] != pid

    def test_again_and_again_at_the_same_work_is_an_error(self, processes: ProcessExecutor) -> None:
        with pytest.raises(WorkFailed, match=r"cell 0: its worker died 4 times in a row .* killed by SIGKILL"):
            processes.call_all("fail", how="die")
        assert processes.restarts == MAX_DEATHS

    def test_while_catching_up_counts_and_is_survived(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Unlucky(ProcessExecutor):
            made = 0

            def make_handle(self, kind: Any, cell: Any) -> Any:
                handle = super().make_handle(kind, cell)
                self.made += 1
                if self.made == 2:  # the first that is made again
                    handle.result()
                    os.kill(handle.pid or 0, signal.SIGKILL)
                return handle

        with Unlucky() as executor:
            executor.start(CountingCell, task(), 1)
            first = added(executor, 1.0)
            os.kill(executor.pids[0] or 0, signal.SIGKILL)
            assert [first, added(executor, 2.0)] == [answers[:1] for answers in expected((1.0,), (2.0,))]
            assert executor.restarts == 2

    def test_snapshots_keep_the_journal_short(
        self, processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recovering_module, "SNAPSHOT_AFTER_BYTES", 0)
        found = [added(processes, float(number)) for number in range(3)]
        assert all(slot.snapshot and not slot.journal for slot in processes._slots)
        os.kill(processes.pids[0] or 0, signal.SIGKILL)
        found.append(added(processes, 3.0))
        assert found == [answers[:2] for answers in expected((0.0,), (1.0,), (2.0,), (3.0,))]


class TestErrors:
    def test_edgebed_s_own_arrive_as_they_are(self, executor: Executor) -> None:
        with pytest.raises(BadInput, match="this cell does not like it; ask for something else"):
            executor.call_all("fail", how="bad_input")

    def test_others_come_with_the_cell_and_the_traceback(self, executor: Executor) -> None:
        with pytest.raises(WorkFailed, match=r"(?s)cell 0: fail failed.*in fail.*ZeroDivisionError: an error"):
            executor.call_all("fail", how="bug")

    def test_the_next_call_has_its_own_answer(self, executor: Executor) -> None:
        with pytest.raises(WorkFailed):
            executor.call_all("fail", how="bug")
        assert added(executor, 1.0) == expected((1.0,))[0]

    def test_an_answer_that_is_no_plain_data(self, executor: Executor) -> None:
        with pytest.raises(BadInput, match="CountingCell is not plain data; a driver and its cells exchange"):
            executor.call_all("fail", how="object")

    @pytest.mark.parametrize("name", ["inline", "processes"])
    def test_a_cell_that_cannot_be_made(self, name: str) -> None:
        with make_executor(name) as made, pytest.raises(BadInput, match="this cell cannot be made; ask for another"):
            made.start(CountingCell, task(fail="made"), 2)

    def test_names(self) -> None:
        with pytest.raises(BadInput, match="no 'threads'; allowed: inline, processes, ray"):
            make_executor("threads")
        with pytest.raises(BadInput, match="goes with the executor ray, not with inline"):
            check_name("inline", "127.0.0.1:6379")

    def test_base_is_what_both_with_processes_share(self) -> None:
        assert issubclass(ProcessExecutor, RecoveringExecutor)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::3],
        np.array(3.5),
        np.zeros((0, 4), np.uint8),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.array([np.nan, -0.0, np.inf]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_survive_the_way(array: np.ndarray[Any, Any]) -> None:
    found = decode(encode({"array": array}))["array"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert found.flags.c_contiguous
    assert found.flags.writeable


def test_plain_data_survives_the_way() -> None:
    data = {"number": 1, "real": 0.1, "text": "x", "none": None, "list": [1, {"a": True}], 3: "three"}
    assert decode(encode(data)) == data
    assert decode(encode({"a": np.float32(0.5), "b": np.int64(2), "c": np.bool_(True)})) == {
        "a": 0.5,
        "b": 2,
        "c": True,
    }


@pytest.mark.parametrize("wrong", [np.array([object()]), {1, 2}.__iter__(), object(), np.array(["2020"], "M8[Y]")])
def test_other_data_is_refused(wrong: Any) -> None:
    with pytest.raises(BadInput, match="a driver and its cells exchange numbers, texts, arrays"):
        encode({"wrong": wrong})


@pytest.mark.parametrize("content", [b"", b"\xc1", encode({"a": np.ones(3)})[:-5], b"\xc7\x02\x01\x05\x01"])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BadInput, match="not a message between a driver and its cells"):
        decode(content)
