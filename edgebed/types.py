"""The nouns that everything shares: sites, outcomes, observations, decisions.

Arrays are struct-of-arrays over *slots*. A slot is a device, fixed for a run; a lost device keeps its slot, absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput, SchemaMismatch

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int32]


class Site(IntEnum):
    """Where a task runs."""

    DEVICE = 0
    EDGE = 1
    SPLIT = 2

    @property
    def label(self) -> str:
        """The name in the trace: ``device``, ``edge`` or ``split``."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> Site:
        """The site that the trace calls ``label``.

        Raises:
            BadInput: there is no such site.
        """
        try:
            return cls[label.upper()]
        except KeyError:
            raise BadInput(f"unknown site '{label}'; allowed: device, edge, split") from None


class Outcome(StrEnum):
    """How a task ended. Every planned task has exactly one."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class DecidedBy(StrEnum):
    """Whose decision was executed."""

    CONTROLLER = "controller"
    DEVICE = "device"
    EXTERNAL = "external"
    FALLBACK = "fallback"


class Placement(StrEnum):
    """Where a policy is evaluated."""

    CONTROLLER = "controller"
    DEVICE = "device"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of an observation, described before anything is connected.

    Attributes:
        low, high: the range it is meant to stay in; not clipped to it.
    """

    name: str
    unit: str
    low: float
    high: float
    meaning: str


DEVICE_FEATURES: tuple[Feature, ...] = (
    Feature("waiting_tasks", "1", 0, np.inf, "tasks that wait for this decision"),
    Feature("waiting_frames", "1", 0, np.inf, "frames in the waiting tasks"),
    Feature("waiting_bytes", "B", 0, np.inf, "payload bytes of the waiting tasks"),
    Feature("waiting_cycles", "cycle", 0, np.inf, "estimated CPU cycles of the waiting tasks"),
    Feature(
        "deadline_s",
        "s",
        0,
        np.inf,
        "least deadline, from arrival, among the waiting tasks; 0 when none waits",
    ),
    Feature("waited_s", "s", 0, np.inf, "age of the oldest waiting task"),
    Feature("device_queue_delay_s", "s", 0, np.inf, "estimated time until the device's executor is free"),
    Feature("device_speed_hz", "cycle/s", 0, np.inf, "cycles per second that one task gets on the device"),
    Feature("uplink_queue_bytes", "B", 0, np.inf, "bytes already waiting for the uplink"),
    Feature(
        "link_rate_bps",
        "bit/s",
        0,
        np.inf,
        "rate of the uplink: configured, or else measured; 0 when unknown",
    ),
    Feature("round_trip_s", "s", 0, np.inf, "least recent round trip to the edge server; 0 when unknown"),
    Feature("device_cpu", "1", 0, 1, "busy share of the device's processors"),
    Feature("battery", "1", 0, 1, "charge left by the battery's gauge; 1 on mains"),
    Feature("position_x_m", "m", -np.inf, np.inf, "position from the hosts file, or where placed; 0 when neither"),
    Feature("position_y_m", "m", -np.inf, np.inf, "position from the hosts file, or where placed; 0 when neither"),
)
"""What is known of each device, in order. ``Observation.values`` has these columns on hosts."""

SERVER_FEATURES: tuple[Feature, ...] = (
    Feature("queue_tasks", "1", 0, np.inf, "tasks admitted and not finished"),
    Feature("queue_delay_s", "s", 0, np.inf, "estimated time until a worker is free"),
    Feature("workers", "1", 1, np.inf, "tasks that run at once"),
    Feature("worker_speed_hz", "cycle/s", 0, np.inf, "cycles per second that one worker gives"),
    Feature("server_cpu", "1", 0, 1, "busy share of the server's processors"),
    Feature("uploading_bytes", "B", 0, np.inf, "bytes offered and not yet received, all channels"),
)
"""What is known of each edge server, in order."""

CHANNEL_FEATURES: tuple[Feature, ...] = (
    Feature("channel_rate_bps", "bit/s", 0, np.inf, "rate of the channel when one device uses it; 0 = not shaped"),
    Feature("channel_uploads", "1", 0, np.inf, "uploads in progress on the channel"),
)
"""What is known of each channel of a server; follows the server's own features, channel by channel."""


@dataclass(frozen=True, slots=True)
class ObservationSpec:
    """Names, units and sizes of an observation; readable with no hardware there.

    The action space is one index a slot: 0 runs on the device, ``1 + server * channels + channel`` offloads. It is
    what ``allowed_actions`` masks; fractions of a decision are continuous and not masked.
    """

    slots: tuple[str, ...]
    servers: tuple[str, ...]
    channels: int = 1
    device_features: tuple[Feature, ...] = DEVICE_FEATURES
    server_features: tuple[Feature, ...] = SERVER_FEATURES
    channel_features: tuple[Feature, ...] = CHANNEL_FEATURES

    @property
    def actions(self) -> int:
        """Size of the action space of one slot."""
        return 1 + len(self.servers) * self.channels

    @property
    def server_width(self) -> int:
        """Numbers that one server contributes to ``Observation.server``."""
        return len(self.server_features) + self.channels * len(self.channel_features)

    @property
    def server_names(self) -> tuple[str, ...]:
        """A name for each number of ``Observation.server``."""
        names: list[str] = []
        for server in self.servers:
            names += [f"{server}.{feature.name}" for feature in self.server_features]
            for channel in range(self.channels):
                names += [f"{server}.channel{channel}.{feature.name}" for feature in self.channel_features]
        return tuple(names)

    def device_index(self, name: str) -> int:
        """Column of a device feature.

        Raises:
            SchemaMismatch: the spec has no such feature; both sides are named.
        """
        for index, feature in enumerate(self.device_features):
            if feature.name == name:
                return index
        have = ", ".join(feature.name for feature in self.device_features)
        raise SchemaMismatch(f"the policy needs the device feature '{name}'; this backend gives: {have}")

    def server_index(self, name: str, server: int = 0) -> int:
        """Position of a server feature in ``Observation.server``.

        Raises:
            SchemaMismatch: the spec has no such feature; both sides are named.
        """
        for index, feature in enumerate(self.server_features):
            if feature.name == name:
                return server * self.server_width + index
        have = ", ".join(feature.name for feature in self.server_features)
        raise SchemaMismatch(f"the policy needs the server feature '{name}'; this backend gives: {have}")

    def channel_index(self, name: str, server: int, channel: int) -> int:
        """Position of a channel feature in ``Observation.server``.

        Raises:
            SchemaMismatch: the spec has no such feature; both sides are named.
        """
        for index, feature in enumerate(self.channel_features):
            if feature.name == name:
                offset = len(self.server_features) + channel * len(self.channel_features)
                return server * self.server_width + offset + index
        have = ", ".join(feature.name for feature in self.channel_features)
        raise SchemaMismatch(f"the policy needs the channel feature '{name}'; this backend gives: {have}")


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy sees at one epoch.

    Attributes:
        values: ``[slots, device features]``; zeros where the slot is absent.
        present: ``[slots]``, True where the device was heard of for this epoch.
        age_s: ``[slots]``, seconds since ``values`` was measured; 0 where fresh.
        server: ``[servers * server_width]``, see `ObservationSpec.server_names`.
        allowed_actions: ``[slots, actions]``, True = allowed.
        epoch: number of the decision epoch, from 0.
    """

    values: Float32Array
    present: BoolArray
    age_s: Float32Array
    server: Float32Array
    allowed_actions: BoolArray
    epoch: int = 0

    @classmethod
    def empty(cls, spec: ObservationSpec, epoch: int = 0) -> Observation:
        """All slots absent, every action allowed."""
        slots = len(spec.slots)
        return cls(
            values=np.zeros((slots, len(spec.device_features)), np.float32),
            present=np.zeros(slots, np.bool_),
            age_s=np.zeros(slots, np.float32),
            server=np.zeros(len(spec.servers) * spec.server_width, np.float32),
            allowed_actions=np.ones((slots, spec.actions), np.bool_),
            epoch=epoch,
        )

    def check(self, spec: ObservationSpec) -> None:
        """Compare every shape with the spec.

        Raises:
            SchemaMismatch: a shape differs; both are named.
        """
        slots = len(spec.slots)
        expected = {
            "values": (slots, len(spec.device_features)),
            "present": (slots,),
            "age_s": (slots,),
            "server": (len(spec.servers) * spec.server_width,),
            "allowed_actions": (slots, spec.actions),
        }
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise SchemaMismatch(f"observation.{name} has shape {got}; the spec says {shape}")


@dataclass(frozen=True, slots=True)
class SlotDecision:
    """What one device is to do with its waiting tasks.

    Attributes:
        site: where to run.
        server, channel: indices; meaningful unless the site is the device.
        edge_fraction: share of a task's frames that goes to the edge when the site is ``split``.
        cpu_fraction: share of the device's clock to compute at, in (0, 1].
        power_fraction: share of the transmit power, in (0, 1].
    """

    site: Site = Site.DEVICE
    server: int = 0
    channel: int = 0
    edge_fraction: float = 0.0
    cpu_fraction: float = 1.0
    power_fraction: float = 1.0

    def problem(self, servers: int, channels: int) -> str | None:
        """What is wrong with it, or None."""
        if not 0 <= self.server < max(1, servers):
            return f"server {self.server} is not in 0..{servers - 1}"
        if not 0 <= self.channel < max(1, channels):
            return f"channel {self.channel} is not in 0..{channels - 1}"
        if not 0.0 <= self.edge_fraction <= 1.0:
            return f"edge_fraction {self.edge_fraction} is not in [0, 1]"
        for name in ("cpu_fraction", "power_fraction"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                return f"{name} {value} is not in (0, 1]"
        return None


DEVICE_ONLY = SlotDecision()


@dataclass(frozen=True, slots=True)
class Decision:
    """What every slot is to do, as arrays of shape ``[slots]``; see `SlotDecision` for meanings and ranges."""

    site: IntArray
    server: IntArray
    channel: IntArray
    edge_fraction: Float32Array
    cpu_fraction: Float32Array
    power_fraction: Float32Array

    @classmethod
    def local(cls, slots: int) -> Decision:
        """Everything on the devices, at full clock and power."""
        return cls(
            site=np.zeros(slots, np.int32),
            server=np.zeros(slots, np.int32),
            channel=np.zeros(slots, np.int32),
            edge_fraction=np.zeros(slots, np.float32),
            cpu_fraction=np.ones(slots, np.float32),
            power_fraction=np.ones(slots, np.float32),
        )

    @classmethod
    def from_actions(cls, actions: IntArray, spec: ObservationSpec) -> Decision:
        """Decode one action index a slot (see `ObservationSpec`)."""
        decision = cls.local(len(actions))
        offloaded = actions > 0
        decision.site[offloaded] = Site.EDGE
        decision.edge_fraction[offloaded] = 1.0
        decision.server[offloaded] = (actions[offloaded] - 1) // spec.channels
        decision.channel[offloaded] = (actions[offloaded] - 1) % spec.channels
        return decision

    def table(self) -> Float32Array:
        """How ``epochs.parquet`` holds it, ``[slots, 6]``: site, server, channel and the three fractions."""
        parts = (self.site, self.server, self.channel, self.edge_fraction, self.cpu_fraction, self.power_fraction)
        return np.stack([part.astype(np.float32) for part in parts], axis=1)

    def slot(self, index: int) -> SlotDecision:
        """The decision for one slot."""
        return SlotDecision(
            site=Site(int(self.site[index])),
            server=int(self.server[index]),
            channel=int(self.channel[index]),
            edge_fraction=float(self.edge_fraction[index]),
            cpu_fraction=float(self.cpu_fraction[index]),
            power_fraction=float(self.power_fraction[index]),
        )

    def check(self, spec: ObservationSpec) -> None:
        """Check shapes and ranges against the spec.

        Raises:
            SchemaMismatch: an array has the wrong length.
            BadInput: a value is out of range; the slot and the allowed range are named.
        """
        slots = len(spec.slots)
        for name in ("site", "server", "channel", "edge_fraction", "cpu_fraction", "power_fraction"):
            got = getattr(self, name).shape
            if got != (slots,):
                raise SchemaMismatch(f"decision.{name} has shape {got}; the spec has {slots} slots")
        if not np.isin(self.site, (0, 1, 2)).all():
            raise BadInput(f"decision.site has values outside 0 (device), 1 (edge), 2 (split): {self.site}")
        slot = self._first_wrong_slot(len(spec.servers), spec.channels)
        if slot is not None:
            problem = self.slot(slot).problem(len(spec.servers), spec.channels)
            raise BadInput(f"decision for {spec.slots[slot]}: {problem}")

    def _first_wrong_slot(self, servers: int, channels: int) -> int | None:
        """The first slot that `SlotDecision.problem` has something to say of; all slots are looked at at once."""
        is_right = (self.server >= 0) & (self.server < max(1, servers))
        is_right &= (self.channel >= 0) & (self.channel < max(1, channels))
        is_right &= (self.edge_fraction >= 0.0) & (self.edge_fraction <= 1.0)
        for fraction in (self.cpu_fraction, self.power_fraction):
            is_right &= (fraction > 0.0) & (fraction <= 1.0)
        return None if is_right.all() else int(np.argmin(is_right))


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What a policy needs and sets; readable without hardware.

    Attributes:
        name: its registered name.
        sets: the fields of a `Decision` that it chooses; the others keep their defaults.
        needs: device features that it reads.
        needs_server: features of a server, or of its channels, that it reads.
        placements: where it can be evaluated.
    """

    name: str
    sets: tuple[str, ...] = ("site",)
    needs: tuple[str, ...] = ()
    needs_server: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = (Placement.CONTROLLER, Placement.DEVICE)
    options: dict[str, str] = field(default_factory=dict)
