"""A real edge server in a process of its own, and a controller that tells it a cell: for tests and benchmarks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import zmq

from edgebed.clock import Clock, MonotonicClock
from edgebed.configuration import Liveness, PeerAddress, PeerKey, ServerConfig, config_bytes
from edgebed.errors import WorkFailed
from edgebed.protocol.cells import CellSpec, cell_to_plain
from edgebed.protocol.codec import control_headers, task_headers
from edgebed.protocol.front import Front, Session
from edgebed.protocol.link import Link
from edgebed.protocol.messages import (
    Acknowledge,
    ControlMessage,
    Prepare,
    Ready,
    Records,
    Role,
    Start,
    Stop,
    TaskMessage,
)
from edgebed.protocol.security import AllowList, Gatekeeper, KeyPair, Peer, make_key_pair, write_key_pair
from edgebed.trace.schema import Record

SERVER = "edge"
PATIENCE_S = 60.0
"""How long to wait for what must come; only a broken server lets it pass."""


def cell_for(serial: int, workload: str, **changes: Any) -> CellSpec:
    """A cell for this one server; ``changes`` are fields of `CellSpec`."""
    fields: dict[str, Any] = {
        "run_id": "run",
        "plan_hash": "",
        "cell_id": f"cell-{serial}",
        "serial": serial,
        "attempt": 1,
        "policy": "all_edge",
        "policy_name": "all_edge",
        "seed": 1,
        "workload": workload,
        "arrivals": {},
        "epoch_s": 1.0,
        "epochs": 600,
        "devices": ["d0"],
        "servers": [SERVER],
    }
    return CellSpec(**(fields | changes))


class ServerUnderTest:
    """Starts ``python -m edge_server``, listens as its controller, and gives links to it.

    Args:
        folder: for keys, settings, log and outbox; empty, or that of an earlier instance to go on with.
        devices: names of devices whose keys are on the list.
        settings: fields of `ServerConfig`.
    """

    def __init__(self, folder: Path, devices: int = 1, **settings: Any) -> None:
        self.folder = folder
        self.clock: Clock = MonotonicClock()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.server_keys, self._controller_keys = make_key_pair(), make_key_pair()
        self.device_keys = {f"d{index}": make_key_pair() for index in range(devices)}
        allow = AllowList({self.server_keys.public: Peer(SERVER, Role.SERVER)})
        self._gatekeeper = Gatekeeper(self.context, allow)
        self.control: Front[ControlMessage] = Front(
            context=self.context,
            bind="tcp://127.0.0.1:0",
            keys=self._controller_keys,
            allow=allow,
            decoder=control_headers,
            clock=self.clock,
            limits=Liveness(),
            name="controller",
            instance="c1",
            roles=frozenset({Role.SERVER}),
        )
        self.heard: list[ControlMessage] = []
        self.rows: list[Record] = []
        self._links: list[Link[TaskMessage]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""
        self._write_files(settings)

    def _write_files(self, settings: dict[str, Any]) -> None:
        write_key_pair(self.folder / "key", self.server_keys)
        controller = PeerAddress("controller", self.control.endpoint, self._controller_keys.public)
        config = ServerConfig(
            name=SERVER,
            state_dir=str(self.folder),
            secret_key_file=str(self.folder / "key"),
            bind="tcp://127.0.0.1:0",
            allow=[PeerKey(name, "device", keys.public) for name, keys in self.device_keys.items()],
            controller=controller,
        )
        config = msgspec.structs.replace(config, **settings)
        (self.folder / "edge_server.json").write_bytes(config_bytes(config))

    # -- the process --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it listens and its control link is up."""
        endpoint_file = self.folder / "edge_server.endpoint"
        before = endpoint_file.stat().st_mtime_ns if endpoint_file.exists() else 0
        old = self.control.by_name.get(SERVER)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_server", "--config", str(self.folder / "edge_server.json")], stderr=log
            )
        self.until(lambda: endpoint_file.exists() and endpoint_file.stat().st_mtime_ns != before)
        self.endpoint = endpoint_file.read_text().strip()
        self.until(lambda: self.control.by_name.get(SERVER, old) is not old)

    def until(self, condition: Callable[[], bool]) -> None:
        """Act as the controller until something is true.

        Raises:
            WorkFailed: the server has ended, or it takes too long.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise WorkFailed(f"the edge server has ended with {self.process.returncode}: {self.log()}")
            if time.monotonic() > give_up_s:
                raise WorkFailed(f"the edge server does not do what is waited for: {self.log()}")
            self.control.socket.poll(5)
            self.listen()

    def listen(self) -> None:
        """Keep what the server tells its controller, and acknowledge its rows."""
        for session, message, payload in self.control.receive():
            self.heard.append(message)
            if isinstance(message, Records) and payload is not None:
                self.rows += msgspec.msgpack.decode(payload.buffer, type=list[Record])
                self.control.send(session, Acknowledge(message.member, message.last))

    def log(self) -> str:
        """The end of what the server has logged."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> int:
        """Ask the process to end; gives its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    # -- what a controller does ---------------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The server's session at its controller."""
        return self.control.by_name[SERVER]

    def prepare(self, cell: CellSpec) -> Ready:
        """Tell it a cell, and wait until it is ready or says why not."""
        self.control.send(self.session, Prepare(cell.serial, cell_to_plain(cell)))
        ready: Ready = self.wait_for(Ready, lambda ready: ready.serial == cell.serial)
        return ready

    def begin(self, serial: int) -> None:
        """Start the cell now."""
        self.control.send(self.session, Start(serial, self.clock.now_s(), 0.0))

    def end(self, serial: int) -> None:
        """Stop the cell."""
        self.control.send(self.session, Stop(serial, "test"))

    def wait_for(self, kind: type[Any], fits: Callable[[Any], bool] = lambda message: True) -> Any:
        """The newest message of a kind from the server, waiting for one."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = [message for message in self.heard if isinstance(message, kind) and fits(message)]
            return bool(found)

        self.until(look)
        return found[-1]

    # -- devices ------------------------------------------------------------------------------------------------------

    def link(self, device: str = "d0", keys: KeyPair | None = None, **changes: Any) -> Link[TaskMessage]:
        """A device's link to the server, as the device agent has it; not yet introduced."""
        arguments: dict[str, Any] = {
            "context": self.context,
            "address": PeerAddress(SERVER, self.endpoint, self.server_keys.public),
            "keys": keys or self.device_keys[device],
            "name": device,
            "role": Role.DEVICE,
            "instance": f"{device}-1",
            "decoder": task_headers,
            "clock": self.clock,
            "limits": Liveness(),
        }
        link: Link[TaskMessage] = Link(**(arguments | changes))
        self._links.append(link)
        return link

    def connected(self, device: str = "d0", **changes: Any) -> Link[TaskMessage]:
        """A device's link, up."""
        link = self.link(device, **changes)
        give_up_s = time.monotonic() + PATIENCE_S
        while not link.is_up and time.monotonic() < give_up_s:
            link.tick(self.clock.now_s())
            link.socket.poll(20)
            for _ in link.receive():
                pass
        if not link.is_up:
            raise WorkFailed(f"{device} is not welcomed: {link.last_error}: {self.log()}")
        return link

    def answers(self, link: Link[TaskMessage], count: int = 1) -> list[TaskMessage]:
        """The next messages of the server to a device, waiting for them."""
        found: list[TaskMessage] = []

        def hear() -> bool:
            link.tick(self.clock.now_s())
            link.socket.poll(1)
            found.extend(message for message, _ in link.receive())
            return len(found) >= count

        self.until(hear)
        return found

    def close(self) -> None:
        """End everything, the process by force if it still runs."""
        for link in self._links:
            link.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        self.control.close()
        self._gatekeeper.close()
        self.context.destroy(linger=0)

    def __enter__(self) -> ServerUnderTest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
