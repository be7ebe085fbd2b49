"""Every registered workload keeps the `Workload` contract."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebed.errors import ProtocolError
from workloads import load_workload, workload_names
from workloads.base import Payload, Result, Task, pack_clip
from workloads.onnx_images.testing import own_files
from workloads.testing import InstantWorkload, check_workload


@pytest.fixture
def options(name: str, tmp_path: Path) -> dict[str, Any]:
    """What a workload cannot do without."""
    if name != "onnx_images":
        return {}
    return {key: str(tmp_path / path) for key, path in own_files(tmp_path).items()}


@pytest.mark.parametrize("name", workload_names())
def test_workload_keeps_the_contract(name: str, options: dict[str, Any]) -> None:
    check_workload(load_workload(name, options))


@pytest.mark.parametrize("name", workload_names())
def test_instances_in_several_threads_agree(name: str, options: dict[str, Any]) -> None:
    task = load_workload(name, options).generate(np.random.default_rng(3), "content", 4)
    payload = pack_clip(task.frames)
    results: list[Result] = []

    def work() -> None:
        mine = load_workload(name, options)
        mine.load()
        results.extend(mine.execute(payload) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 15
    assert len(set(results)) == 1


class Forgetful(InstantWorkload):
    """Recognises only the first frame."""

    def execute(self, payload: Payload) -> Result:
        return Result(super().execute(payload).predicted[:1])


class Careless(InstantWorkload):
    """Lets a parsing error out as it is."""

    def execute(self, payload: Payload) -> Result:
        try:
            return super().execute(payload)
        except ProtocolError as error:
            raise IndexError(str(error)) from error


class Credulous(InstantWorkload):
    """Takes anything for a clip."""

    def execute(self, payload: Payload) -> Result:
        try:
            return super().execute(payload)
        except ProtocolError:
            return Result(())


class Moody(InstantWorkload):
    """Ignores the generator it is given."""

    def generate(self, rng: np.random.Generator, content_id: str, frames: int) -> Task:
        return super().generate(np.random.default_rng(), content_id, frames)


@pytest.mark.parametrize(
    ("broken", "error", "sentence"),
    [
        (Forgetful, AssertionError, "one prediction for each frame"),
        (Careless, IndexError, "a clip"),
        (Credulous, AssertionError, "must raise ProtocolError"),
        (Moody, AssertionError, "the same generator state gives the same bytes"),
    ],
)
def test_checker_finds_a_broken_workload(broken: type[InstantWorkload], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        check_workload(broken())
