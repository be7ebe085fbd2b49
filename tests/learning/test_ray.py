"""Trainings on Ray, started on this machine: the same digits as inline, whatever dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edgebed.errors import BadInput, WorkFailed
from edgebed.learning import learner_class
from edgebed.learning.executor import make_executor
from edgebed.learning.executor.ray import RayExecutor, freest_node, remove_left_folders
from edgebed.learning.testing import CountingCell, check_learner
from orchestrator.cli import main
from tests.learning.test_learners import small_task
from tests.learning.training import CROSS_ENTROPY, only_training, press_ctrl_c, result_of, start, train, wait_for
from tests.unit.test_executors import added, expected, task  # the same cells, and the same answers


def test_one_training_on_ray_whose_workers_are_killed(tmp_path: Path) -> None:
    """Killed by their ids, one after the other, while it learns: the run goes on with the same result."""
    inline = train(*CROSS_ENTROPY, "--steps", "12000", "--runs", tmp_path / "inline")
    runs = tmp_path / "ray"
    process = start("train", *CROSS_ENTROPY, "--steps", "12000", "--runs", runs, "--executor", "ray")
    for died in range(2):
        workers = wait_for(lambda: actors_of(process.pid), process)
        lines = count_lines(runs)
        wait_for(lambda lines=lines: count_lines(runs) > lines + 2, process)
        os.kill(workers[died % len(workers)], signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    folder = only_training(runs)
    assert folder is not None
    assert result_of(folder) == result_of(Path(inline["training"]))
    status = json.loads((folder / "status.json").read_text())
    assert status["executor"] == "RayExecutor"
    assert status["restarts"] >= 1
    log = (folder / "log.jsonl").read_text()
    assert "2 cells, RayExecutor on 127.0.0.1, 127.0.0.1" in log
    assert "was lost" in log
    assert "it is started again, and the run goes on" in log


def test_ray_listens_on_loopback_only_and_ends(tmp_path: Path) -> None:
    process = start("train", *CROSS_ENTROPY, "--steps", "400000", "--runs", tmp_path, "--executor", "ray")
    wait_for(lambda: actors_of(process.pid), process)
    family = [process.pid, *(one.pid for one in psutil.Process(process.pid).children(recursive=True))]
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.net_connections("inet")
        if connection.pid in family and connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    press_ctrl_c(process)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    wait_for(lambda: not [pid for pid in family if psutil.pid_exists(pid)])


def test_a_killed_training_takes_its_ray_along(tmp_path: Path) -> None:
    process = start("train", *CROSS_ENTROPY, "--steps", "400000", "--runs", tmp_path, "--executor", "ray")
    wait_for(lambda: actors_of(process.pid), process)
    family = [one.pid for one in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.communicate()
    wait_for(lambda: not [pid for pid in family if psutil.pid_exists(pid)])
    (left,) = Path("/tmp").glob(f"edgebed-ray-{process.pid}-*")
    remove_left_folders()
    assert not left.exists()


@pytest.mark.parametrize("name", ["cross_entropy", "dc_drl"])
def test_learners_give_the_same_on_ray(name: str, tmp_path: Path) -> None:
    check_learner(learner_class(name), small_task(name), tmp_path, executors=("ray",))


def test_answers_errors_and_deaths_are_as_in_processes() -> None:
    with make_executor("ray") as executor:
        assert isinstance(executor, RayExecutor)
        executor.start(CountingCell, task(), 3)
        found = [added(executor, 1.0)]
        with pytest.raises(BadInput, match="this cell does not like it; ask for something else"):
            executor.call_all("fail", how="bad_input")
        with pytest.raises(WorkFailed, match=r"(?s)cell 0: fail failed.*ZeroDivisionError"):
            executor.call_all("fail", how="bug")
        pid = executor.pids[2]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        found.append(added(executor, 2.0))
        assert found == expected((1.0,), (2.0,))
        assert executor.restarts == 1
        with pytest.raises(WorkFailed, match="cell 0: its worker died 4 times in a row"):
            executor.call_all("fail", how="die")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1: .*refused; `ray status --address 127.0.0.1:1` on one of its"),
        ("10.0.0.1", "'10.0.0.1'; HOST:PORT is needed, as in 10.0.0.1:6379"),
        ("ray://x:99999", "HOST:PORT is needed"),
    ],
)
def test_no_cluster_at_an_address(address: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--executor", "ray", "--ray-address", address, "--runs", str(tmp_path / "runs"))
    assert main(["train", *CROSS_ENTROPY, *words]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def actors_of(pid: int) -> list[int]:
    """Process ids of the Ray actors below a process."""
    found = []
    for one in psutil.Process(pid).children(recursive=True):
        try:
            if "ray::_Actor" in " ".join(one.cmdline()):
                found.append(one.pid)
        except psutil.Error:
            continue
    return sorted(found)


def count_lines(runs: Path) -> int:
    folder = only_training(runs)
    path = None if folder is None else folder / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path is not None and path.exists() else 0


def test_without_usage_statistics() -> None:
    """What Ray itself says of its settings in a process where the executor has been made."""
    code = (
        "from edgebed.learning.executor.ray import RayExecutor\n"
        "with RayExecutor():\n"
        "    from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "    print(usage_stats_enabled())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "False"


def test_actors_are_spread_over_the_nodes_by_their_processors() -> None:
    nodes = [node("head", 0.0), node("small", 2.0), node("large", 6.0), node("dead", 64.0, alive=False)]
    taken: dict[str, int] = {}
    for _ in range(8):
        chosen = freest_node(nodes, taken)
        taken[chosen] = taken.get(chosen, 0) + 1
    assert taken == {"small": 2, "large": 6}
    assert freest_node([node("head", 0.0)], {"head": 3}) == "head"
    with pytest.raises(WorkFailed, match="no node of the Ray cluster is alive"):
        freest_node([node("dead", 4.0, alive=False)], {})


def node(name: str, processors: float, *, alive: bool = True) -> dict[str, object]:
    """What `ray.nodes()` says of one; it leaves out resources of which there are none."""
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": processors} if processors else {}}
