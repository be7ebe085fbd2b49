"""What the orchestrator hands to a program when it starts it: one JSON file, no secrets in it.

Keys lie beside it in files of their own (mode 0600), named here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from edgebed.errors import BadInput, Problem

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0.0)]


class PeerKey(msgspec.Struct, forbid_unknown_fields=True):
    """An entry of the allow-list: who may speak with which key, as what."""

    name: str
    role: str
    public_key: str


class PeerAddress(msgspec.Struct, forbid_unknown_fields=True):
    """Where a program listens, and the public key that it must prove to have."""

    name: str
    endpoint: str
    public_key: str


class Liveness(msgspec.Struct, forbid_unknown_fields=True):
    """Heartbeats: how often, and after how long a silence a peer counts as lost."""

    heartbeat_s: Positive = 0.5
    dead_after_s: Positive = 3.0


class HostConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every program is told.

    Attributes:
        state_dir: the program's folder on its host: outbox, endpoint file, rendered content.
        secret_key_file: its CURVE key pair.
        board: a board file's content (see `edgebed.metering.board`).
        second_meter: what the meter is held against; empty: nothing.
        shares_machine: other hosts of the run are processes of the same machine. Its utilisation is then nobody's own,
            and a model that turns utilisation into power would charge every host with the work of all.
        sysfs_root, proc_root: where sensors are read; scripted trees in tests.
        orphan_after_s: a program that nobody has asked for anything for so long, and that has nothing left to do, ends.
    """

    name: str
    run_id: str = ""
    plan_hash: str = ""
    state_dir: str
    secret_key_file: str
    board: dict[str, Any] = {}
    meter: str = "cpu_model"
    meter_options: dict[str, Any] = {}
    second_meter: str = ""
    second_meter_options: dict[str, Any] = {}
    shares_machine: bool = False
    sample_interval_s: Positive = 0.1
    sysfs_root: str = "/sys"
    proc_root: str = "/proc"
    liveness: Liveness = msgspec.field(default_factory=Liveness)
    orphan_after_s: Positive = 600.0

    @property
    def power_meter(self) -> str | None:
        """The meter that host samples take power from; None when it would say nothing about this host."""
        return None if self.shares_machine and self.meter == "cpu_model" else self.meter


class DeviceConfig(HostConfig, kw_only=True):
    """A device agent's settings.

    Attributes:
        slowdown: how many times slower than this host to appear; 1 = as it is. Rows become ``emulated`` above 1.
        link_rate_bps: pace the uplink to this rate; 0 = as fast as the network.
        position_m: x, y for the scenarios that have places.
    """

    controller: PeerAddress
    servers: list[PeerAddress]
    slowdown: Annotated[float, Meta(ge=1.0, le=1000.0)] = 1.0
    link_rate_bps: Annotated[float, Meta(ge=0.0)] = 0.0
    position_m: tuple[float, float] = (0.0, 0.0)


class ServerConfig(HostConfig, kw_only=True):
    """An edge server's settings.

    Attributes:
        bind: where to listen, for example ``tcp://127.0.0.1:0``; port 0 picks one, kept over restarts.
        queue_tasks, queue_bytes: bounds of what is admitted and not finished.
    """

    bind: str
    allow: list[PeerKey]
    controller: PeerAddress | None = None
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    slowdown: Annotated[float, Meta(ge=1.0, le=1000.0)] = 1.0
    queue_tasks: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    queue_bytes: Annotated[int, Meta(ge=1)] = 256 << 20


class ControllerConfig(HostConfig, kw_only=True):
    """The controller's settings."""

    bind: str
    allow: list[PeerKey]


C = TypeVar("C", bound=HostConfig)


def read_config(path: Path, kind: type[C]) -> C:
    """Read a program's settings.

    Raises:
        BadInput: the file is missing, not JSON, or a field is missing, unknown or out of bounds.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    except msgspec.MsgspecError as error:
        raise BadInput(Problem(str(error), file=str(path))) from None


def config_bytes(config: HostConfig) -> bytes:
    """The file's content for a program's settings."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2)
