"""One Ray actor a cell, on this machine or over a cluster of servers; aggregation stays with the driver.

Without an address Ray is started for this training alone: on the loopback interface, with no dashboard, no usage
statistics, and a bounded object store, in a folder that is removed afterwards. With one it joins a cluster that is
already running, whose servers have the same version of edgebed; its nodes get actors in proportion to their processors.
``docs/learning.md`` shows how to start one.
"""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from edgebed import __version__
from edgebed.errors import BadInput, MissingExtra, WorkFailed
from edgebed.learning.base import Cell, CellWorker
from edgebed.learning.executor.recovering import Handle, RecoveringExecutor, WorkerLostError
from edgebed.learning.executor.serving import Server

OBJECT_STORE_BYTES = 512 << 20
_FOLDERS, _FOLDER = Path("/tmp"), "edgebed-ray-"  # noqa: S108
_CONNECT_S = 5.0

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns that it will change how GPUs are hidden
}
_LOCAL = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""The second is Ray's own switch for 'no cluster on this machine': its nodes then have the address 127.0.0.1."""

_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105


class RayExecutor(RecoveringExecutor):
    """Runs each cell in a Ray actor.

    Args:
        address: of a running cluster; None: start Ray here.

    Raises:
        MissingExtra: Ray is not installed.
        BadInput: no cluster answers at the address.
    """

    def __init__(self, address: str | None = None) -> None:
        super().__init__()
        if address is not None:
            check_reachable(address)
        self._folder: Path | None = None
        if address is None:
            # Only this process gets in. Ray would make a token for all of them, in a file that all users may read; and
            # it reads it but once, so that it stays for the next executor of this process.
            os.environ.setdefault(_TOKEN, secrets.token_hex(32))
        self._ray = _import_ray(is_local=address is None)
        self._is_ours = not self._ray.is_initialized()  # else the user's program started it, and ends it
        if self._is_ours:
            self._connect(address)

    def _connect(self, address: str | None) -> None:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            # Not the default folder, whose logs stay for ever; and a short path, for the sockets in it.
            remove_left_folders()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=_FOLDERS))
            settings |= {
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(self._folder),
            }
        try:
            self._ray.init(address=address or "local", **settings)
        except (ConnectionError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
            self.close()
            if address is None:
                raise WorkFailed(
                    f"Ray does not start on this machine: {error}; --executor processes does without it"
                ) from None
            raise BadInput(_no_cluster(address, str(error))) from None

    def make_handle(self, kind: type[CellWorker], cell: Cell) -> Handle:
        """Start an actor, on the node that has the fewest for its processors."""
        others = [slot.handle for slot in self._slots if slot.cell is not cell]
        taken = Counter(handle.node for handle in others if isinstance(handle, _ActorHandle))
        return _ActorHandle(self._ray, kind, cell, freest_node(self._ray.nodes(), taken))

    @property
    def places(self) -> list[str]:
        """Address of the node that each cell runs on."""
        return [slot.handle.place for slot in self._slots if isinstance(slot.handle, _ActorHandle)]

    def close(self) -> None:
        """End the actors, and Ray, where it was started for them."""
        super().close()
        if self._is_ours and self._ray.is_initialized():
            self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _ActorHandle(Handle):
    def __init__(self, ray: Any, kind: type[CellWorker], cell: Cell, node: str) -> None:
        self.node = node
        self._ray = ray
        self._cell = cell
        self._pid: int | None = None
        self.place = ""
        # No processors are asked for: more cells than processors are slower, not stuck. It also makes Ray give the
        # actor's libraries one thread. That is why it is told the node, and not softly: of actors that need nothing
        # Ray's "SPREAD" and soft affinity bring any number to one server. A node that is dead by then counts as a
        # worker lost. Restarting is ours, because it needs the worker's state.
        strategy = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        place = strategy(node_id=node, soft=False)
        self._actor = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=place)(_Actor).remote(kind, cell)
        self._waiting: deque[Any] = deque()
        self._greeting: Any = self._actor.greeting.remote()

    def submit(self, content: bytes) -> None:
        self._waiting.append(self._actor.answer.remote(content))

    def result(self) -> bytes:
        try:
            if self._greeting is not None:
                return self._greeted(self._ray.get(self._greeting))
            answer: bytes = self._ray.get(self._waiting.popleft())
            return answer
        except self._ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
            raise WorkerLostError(f"the Ray actor (process {self.pid}) was lost: {reason}") from None

    def _greeted(self, greeting: dict[str, Any]) -> bytes:
        self._greeting, self._pid, self.place = None, int(greeting["pid"]), str(greeting["place"])
        if greeting["version"] != __version__:
            raise BadInput(
                f"cell {self._cell.index}: the Ray node {self.place} has edgebed {greeting['version']}, here it "
                f"is {__version__}; install the same on all servers"
            )
        first_answer: bytes = greeting["first_answer"]
        return first_answer

    def stop(self) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor, no_restart=True)

    @property
    def pid(self) -> int | None:
        return self._pid


class _Actor:
    """What runs in the actor's process."""

    def __init__(self, kind: type[CellWorker], cell: Cell) -> None:
        self._server = Server(kind, cell)

    def greeting(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "place": importlib.import_module("ray").util.get_node_ip_address(),
            "first_answer": self._server.first_answer,
        }

    def answer(self, content: bytes) -> bytes:
        return self._server.answer(content)


def freest_node(nodes: Sequence[Mapping[str, Any]], taken: Mapping[str, int]) -> str:
    """Node for one more actor.

    Args:
        nodes: as `ray.nodes()` gives them; those without processors are for other things, unless there are no others.
        taken: actors on each node, by its id.

    Returns:
        Id of the one that would have the fewest actors for each of its processors; of equal ones the first.

    Raises:
        WorkFailed: no node is alive.
    """
    alive = {str(node["NodeID"]): node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"]}
    usable = {node: processors for node, processors in alive.items() if processors > 0} or dict.fromkeys(alive, 1.0)
    if not usable:
        raise WorkFailed("no node of the Ray cluster is alive; `ray status` on one of its servers shows why")
    return min(usable, key=lambda node: (taken.get(node, 0) + 1) / usable[node])


def check_reachable(address: str) -> None:
    """Does anybody listen there? Ray itself would try for minutes, and end the program.

    Raises:
        BadInput: nobody does, or it is no ``HOST:PORT``.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadInput(f"address of a Ray cluster: {address!r}; HOST:PORT is needed, as in 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        raise BadInput(_no_cluster(address, str(error))) from None


def remove_left_folders() -> None:
    """Remove the folders of Ray whose program was killed before it could."""
    for folder in _FOLDERS.glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"no Ray cluster at {address}: {reason}; `ray status --address {address}` on one of its servers shows whether "
        "it is up, and docs/learning.md how to start it"
    )


def _import_ray(*, is_local: bool) -> Any:
    os.environ.update(_QUIET | (_LOCAL if is_local else {}))  # Ray reads them when it is imported
    try:
        return importlib.import_module("ray")  # not `import`, whose types take half a minute to check
    except ModuleNotFoundError:
        raise MissingExtra("ray", "--executor ray") from None
