"""A profile: what the hosts of a testbed are like, in numbers, as a YAML file.

Every random quantity is stored as *quantiles*: its values at evenly spaced probabilities from 0 to 1, so that one value
is a constant and a draw is an interpolation. A host is looked up by its name, then as ``"*"``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edgebed.errors import BadInput, Problem, SchemaMismatch
from edgebed.replacing import replace_file

FloatArray = NDArray[np.float64]

PROFILE_SCHEMA = 1

ANY = "*"
"""The host that every host is that has no profile of its own."""

Quantiles = Annotated[list[float], Meta(min_length=1, max_length=1001)]
NotNegative = Annotated[float, Meta(ge=0.0, le=1e12)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class _Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the file; unknown keys are errors."""


class ServiceTime(_Part, kw_only=True):
    """What executing some frames takes: ``(overhead_s + seconds_per_frame * frames) * ratio``.

    Attributes:
        overhead_s: of a task, whatever it holds.
        ratio: quantiles of what a task takes relative to that.
        cpu_share: CPU seconds that a second of service uses; less than 1 where waiting emulates a slower board.
        busy_share: busy core-seconds in a second of service; waiting that emulates a slower board counts.
        warm_up_s_per_frame: what frames take before the cell, which is what a host knows of itself at first; None: as
            ``seconds_per_frame``.
    """

    overhead_s: NotNegative = 0.0
    seconds_per_frame: NotNegative
    ratio: Quantiles = msgspec.field(default_factory=lambda: [1.0])
    cpu_share: NotNegative = 1.0
    busy_share: NotNegative = 1.0
    warm_up_s_per_frame: NotNegative | None = None

    def mean_s(self, frames: FloatArray) -> FloatArray:
        """Seconds without their variation."""
        return self.overhead_s + self.seconds_per_frame * frames

    @property
    def first_estimate_s(self) -> float:
        """Seconds a frame that the host believes in at the start of a cell."""
        return self.seconds_per_frame if self.warm_up_s_per_frame is None else self.warm_up_s_per_frame


class Link(_Part, kw_only=True):
    """A device's way to the edge servers and back.

    An upload keeps the uplink for ``hold_s + 8 (bytes + chunks * chunk_overhead_bytes) / rate * time_ratio`` seconds;
    its last byte is there ``uplink_delay_s`` later.

    Attributes:
        rate_bps: 0: bytes take no time. None: what the hosts file paces the uplink to.
        paced_bps: what that was in the runs of a fit; for whoever has no hosts file.
        time_ratio: quantiles. hold_s: of an upload, whatever its size.
        uplink_delay_s, downlink_s: quantiles of the way there, and of a result's way back.
        refusal_s: quantiles, from the begin of an upload until its refusal is known.
        round_trip_s: what the device measures of an idle link; part of observations.
        chunk_bytes, chunk_overhead_bytes: of messages.
    """

    rate_bps: NotNegative | None = None
    paced_bps: NotNegative = 0.0
    time_ratio: Quantiles = msgspec.field(default_factory=lambda: [1.0])
    hold_s: NotNegative = 0.0
    uplink_delay_s: Quantiles = msgspec.field(default_factory=lambda: [0.0])
    downlink_s: Quantiles = msgspec.field(default_factory=lambda: [0.0])
    refusal_s: Quantiles = msgspec.field(default_factory=lambda: [0.0])
    round_trip_s: NotNegative = 0.0
    chunk_bytes: Annotated[int, Meta(ge=1)] = 1 << 16
    chunk_overhead_bytes: Annotated[int, Meta(ge=0)] = 0


class Power(_Part, kw_only=True):
    """A host's power model, as `edgebed.metering.energy` uses it: busy cores and time on air above idle.

    Attributes:
        source: the model's name in ``energy_source``, behind ``estimated:``.
        compute_ratio: fitted correction of the joules of computing; 1 when there was no meter to fit to.
        compute_error_fraction, transmit_error_fraction: stated errors.
    """

    cores: Annotated[int, Meta(ge=1)]
    idle_w: NotNegative
    max_w: NotNegative
    transmit_w: NotNegative = 0.0
    compute_ratio: NotNegative = 1.0
    compute_error_fraction: NotNegative = 0.0
    transmit_error_fraction: NotNegative = 0.0
    source: str


class Host(_Part, kw_only=True):
    """What devices and edge servers have in common.

    Attributes:
        board: the board that it is, or stands for; empty: any.
        processor: the group of ``processors`` whose cores it shares; empty: it has its own.
        accuracy: probability that a frame is recognised correctly there; None: not known, then nothing is predicted.
        power: None: energy is unknown.
        cpu_idle: busy share of its processors without any task.
        cpu_resting, cpu_working: quantiles of that share in observations, while the host has no task to compute and
            while it has; None: computed from ``cpu_idle`` and the tasks.
    """

    board: str = ""
    compute: ServiceTime
    processor: str = ""
    accuracy: Share | None = None
    power: Power | None = None
    cpu_idle: Share = 0.0
    cpu_resting: Quantiles | None = None
    cpu_working: Quantiles | None = None


class DeviceProfile(Host, kw_only=True):
    """A device."""

    link: Link


class ServerProfile(Host, kw_only=True):
    """An edge server.

    Attributes:
        workers, queue_tasks: None: as the hosts file says.
    """

    workers: Annotated[int, Meta(ge=1)] | None = None
    queue_tasks: Annotated[int, Meta(ge=1)] | None = None


class Processor(_Part, kw_only=True):
    """Processors that several hosts share, as processes of one machine do.

    A computation that begins while ``k`` others go on takes ``1 + per_other * k + per_excess * max(0, k + 1 - cores)``
    times as long. What begins later does not slow it any more: an approximation, good for short tasks.
    """

    cores: Annotated[float, Meta(gt=0.0)]
    per_other: NotNegative = 0.0
    per_excess: NotNegative = 0.0


class Decider(_Part, kw_only=True):
    """Who decides at one placement.

    Attributes:
        delay_s: quantiles, from the tick (or the arrival) until a decision is known on the device.
        compute_s: quantiles, of which the policy itself takes so much.
    """

    delay_s: Quantiles = msgspec.field(default_factory=lambda: [0.0])
    compute_s: Quantiles = msgspec.field(default_factory=lambda: [0.0])


class Source(_Part, kw_only=True):
    """Where a profile comes from.

    Attributes:
        kind: ``stated`` (from boards and workloads) or ``calibrated`` (from runs).
        runs, cells, tasks, seeds, policies: what it was fitted on.
        text: a sentence for people.
        residuals: of the fit, by quantity; plain data.
        conditions: arrivals, deadlines, epochs and rewards of the runs, by the names of the parameters of
            ``calibrated:`` scenarios, whose defaults they are.
    """

    kind: Literal["stated", "calibrated"] = "stated"
    runs: list[str] = []
    cells: list[str] = []
    tasks: Annotated[int, Meta(ge=0)] = 0
    seeds: list[int] = []
    policies: list[str] = []
    text: str = ""
    residuals: dict[str, Any] = {}
    conditions: dict[str, Any] = {}


class Profile(_Part, kw_only=True):
    """A testbed, in numbers.

    Attributes:
        workload: whose tasks it is for.
        model_sha256: of the model that was run; empty: any.
        frame_bytes: quantiles of a clip's mean frame size.
        cycles_per_frame: as rows and observations have it.
        within_task_correlation: rank correlation of a task's ratios on a device and at a server: the same content.
        drift: quantiles of how long everything computes in a whole cell, relative to a usual one: other work, heat and
            clocks make a machine faster or slower for a while.
        deciders: by placement, ``controller`` and ``device``.
    """

    profile_schema: int = PROFILE_SCHEMA
    workload: str
    model_sha256: str = ""
    cycles_per_frame: NotNegative
    frame_bytes: Quantiles
    within_task_correlation: Share = 0.0
    drift: Quantiles = msgspec.field(default_factory=lambda: [1.0])
    devices: dict[str, DeviceProfile]
    servers: dict[str, ServerProfile]
    deciders: dict[Literal["controller", "device"], Decider]
    processors: dict[str, Processor] = {}
    source: Source = msgspec.field(default_factory=Source)

    def device(self, name: str) -> DeviceProfile:
        """What a device is like.

        Raises:
            BadInput: the profile is not for it.
        """
        return _looked_up(self.devices, name, "device")

    def server(self, name: str) -> ServerProfile:
        """What an edge server is like.

        Raises:
            BadInput: the profile is not for it.
        """
        return _looked_up(self.servers, name, "edge server")

    def decider(self, placement: str) -> Decider:
        """Who decides at a placement; an external program is taken for as quick as the controller."""
        return self.deciders["device" if placement == "device" else "controller"]

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its numbers."""
        for path, values in _quantiles_of(msgspec.to_builtins(self)):
            if not all(map(math.isfinite, values)) or values != sorted(values):
                yield Problem("quantiles are finite numbers, each at least as large as the one before", path)
            elif values[0] < 0:
                yield Problem(f"begins with {values[0]}; allowed: 0 and more", path)
        for placement in ("controller", "device"):
            if placement not in self.deciders:
                yield Problem("is missing", f"deciders.{placement}")
        for group in (self.devices, self.servers):
            for name, host in group.items():
                if host.processor and host.processor not in self.processors:
                    known = ", ".join(self.processors) or "none"
                    yield Problem(f"{name} is on {host.processor!r}; `processors` has: {known}", "processor")

    def check_fits(self, workload: str, model_sha256: str, boards: Mapping[str, str]) -> None:
        """Is the profile one of this testbed?

        Args:
            workload: what is to be computed.
            model_sha256: checksum of its model; empty: not known.
            boards: board by host name, of every host.

        Raises:
            SchemaMismatch: it is of another workload, model or board; both sides are named.
        """
        if workload != self.workload:
            raise SchemaMismatch(f"the profile is of workload {self.workload!r}, the experiment runs {workload!r}")
        if self.model_sha256 and model_sha256 and model_sha256 != self.model_sha256:
            raise SchemaMismatch(
                f"the profile was fitted with model {self.model_sha256[:12]}, the experiment runs {model_sha256[:12]}; "
                "calibrate again"
            )
        for name, board in boards.items():
            host: Host | None = self.devices.get(name) or self.servers.get(name)
            if host is not None and host.board and host.board != board:
                raise SchemaMismatch(
                    f"{name} is a {board} in the hosts file and a {host.board} in the profile; calibrate again, or "
                    "give that host another name"
                )


HostType = TypeVar("HostType", bound=Host)


def _looked_up(hosts: Mapping[str, HostType], name: str, what: str) -> HostType:
    found = hosts.get(name) or hosts.get(ANY)
    if found is None:
        raise BadInput(f"the profile has no {what} {name!r} and no '*'; it has: {', '.join(hosts) or 'none'}")
    return found


_QUANTILES = frozenset(
    {
        "ratio",
        "time_ratio",
        "uplink_delay_s",
        "downlink_s",
        "refusal_s",
        "delay_s",
        "compute_s",
        "frame_bytes",
        "drift",
        "cpu_resting",
        "cpu_working",
    }
)


def _quantiles_of(plain: Any, path: str = "") -> Iterator[tuple[str, list[float]]]:
    for key, value in plain.items() if isinstance(plain, dict) else ():
        inner = f"{path}.{key}" if path else str(key)
        if key in _QUANTILES and isinstance(value, list):
            yield inner, value
        elif key not in ("residuals", "conditions"):
            yield from _quantiles_of(value, inner)


def draw(quantiles: list[float], chance: FloatArray) -> FloatArray:
    """Values of a stored distribution.

    Args:
        quantiles: values at evenly spaced probabilities from 0 to 1.
        chance: uniform numbers in [0, 1), of any shape.
    """
    if len(quantiles) == 1:
        return np.full(chance.shape, quantiles[0])
    drawn: FloatArray = np.interp(chance, np.linspace(0.0, 1.0, len(quantiles)), np.asarray(quantiles))
    return drawn


def quantiles_of(values: FloatArray, count: int = 101) -> list[float]:
    """The quantiles to store of a sample."""
    return [float(value) for value in np.quantile(values, np.linspace(0.0, 1.0, count))]


def write_profile(profile: Profile, path: Path | str) -> None:
    """Write a profile's file, replacing one that is there in one step."""
    replace_file(Path(path), profile_text(profile).encode())


def profile_text(profile: Profile) -> str:
    """A profile as YAML; the same profile gives the same text. Hosts that are alike are written once."""
    import yaml

    plain = msgspec.to_builtins(profile)
    for group in ("devices", "servers"):
        # The same object twice becomes an anchor and its aliases.
        kinds: dict[bytes, Any] = {}
        for name, host in plain[group].items():
            plain[group][name] = kinds.setdefault(msgspec.json.encode(host), host)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(plain, Dumper=dumper, sort_keys=False, width=120, allow_unicode=True)
    return text


def read_profile(path: Path | str) -> Profile:
    """Read a profile's file.

    Raises:
        BadInput: it cannot be read, or something in it is wrong; file and key are named.
        SchemaMismatch: it is of another version of the format.
    """
    import yaml

    path = Path(path)
    try:
        plain = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(Problem(f"is not YAML: {error}", file=str(path))) from None
    return profile_from_plain(plain, str(path))


def profile_from_plain(plain: Any, file: str = "") -> Profile:
    """A profile from plain data; raises as `read_profile`."""
    if not isinstance(plain, dict) or "profile_schema" not in plain:
        raise BadInput(
            Problem("is not a profile: it has no `profile_schema`; `edgebed calibrate` writes one", file=file)
        )
    if plain["profile_schema"] != PROFILE_SCHEMA:
        raise SchemaMismatch(
            f"{file}: profile_schema is {plain['profile_schema']!r}; this edgebed reads {PROFILE_SCHEMA}: "
            "calibrate again"
        )
    try:
        profile = msgspec.convert(plain, Profile)
    except msgspec.ValidationError as error:
        raise BadInput(Problem(f"is not a profile: {error}", file=file)) from None
    problems = [Problem(each.message, each.key, file) for each in profile.problems()]
    if problems:
        raise BadInput(problems)
    return profile
