"""What a cell is, as the orchestrator tells every member: all that is needed to run it, and nothing secret."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edgebed.errors import ProtocolError
from edgebed.protocol.messages import ErrorCode, Name

Positive = Annotated[float, Meta(gt=0.0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0.0, le=1e12)]
PositiveCount = Annotated[int, Meta(ge=1, le=10_000_000)]


class ChannelSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Virtual channels of every edge server.

    Attributes:
        model: ``none`` (uploads go as fast as the network carries them), ``share`` (the uploads on a channel share
            its rate equally), ``sinr`` (the rates follow the interference equation of scenario `dc-drl`).
        rate_bps: rate of one channel; of ``share`` alone.
        parameters: `edgebed.protocol.radio.RadioSettings`; of ``sinr`` alone.
    """

    count: Annotated[int, Meta(ge=1, le=1024)] = 1
    model: Literal["none", "share", "sinr"] = "none"
    rate_bps: NotNegative = 0.0
    parameters: dict[str, float] = {}


class RewardSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Cost of a task: ``latency * latency_s + energy * (device J + server J) + miss_penalty [if missed]``.

    A failed task is charged the time-out as its latency, and the penalty. An unknown task has no cost.
    """

    latency: NotNegative = 1.0
    energy: NotNegative = 0.0
    miss_penalty: NotNegative = 1.0


class Timeouts(msgspec.Struct, forbid_unknown_fields=True):
    """How long to wait before giving up, in seconds.

    Attributes:
        decision_s: for a decision, from the tick; then the fallback policy decides.
        task_s: for a task's result, from its scheduled arrival; then the outcome is ``unknown``.
        prepare_s: for a member to load and render; in virtual time also for each answer of a program outside.
    """

    decision_s: Positive = 0.25
    task_s: Positive = 10.0
    prepare_s: Positive = 120.0


class CellSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One (policy, seed, setting) of a run.

    Attributes:
        serial: number of this attempt of this cell, unique and rising in a run; what messages carry.
        devices: names in slot order. servers: names in the order that decisions index.
        arrivals: settings of `workloads.arrivals`, plain data.
        policy: what the experiment calls it, in rows and tables. policy_name: its registered name.
        policy_options: handed to the policy when it is made.
        positions_m: x, y of every host, by name; only where channels interfere.
    """

    run_id: str
    plan_hash: str
    cell_id: Name
    serial: PositiveCount
    attempt: PositiveCount
    policy: str
    policy_name: str
    policy_options: dict[str, Any] = {}
    placement: Literal["controller", "device", "external"] = "controller"
    fallback_policy: str = "all_local"
    seed: Annotated[int, Meta(ge=0, le=2**53)]
    workload: str
    workload_options: dict[str, Any] = {}
    arrivals: dict[str, Any]
    decide_at: Literal["tick", "arrival"] = "tick"
    epoch_s: Positive
    epochs: PositiveCount
    warm_up_epochs: Annotated[int, Meta(ge=0)] = 1
    channels: ChannelSettings = msgspec.field(default_factory=ChannelSettings)
    reward: RewardSettings = msgspec.field(default_factory=RewardSettings)
    on_refusal: Literal["fail", "local"] = "fail"
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    devices: list[Name]
    servers: list[Name]
    stop: dict[str, Any] = {}
    positions_m: dict[str, tuple[float, float]] | UnsetType = UNSET

    @property
    def horizon_s(self) -> float:
        """The last instant at which a task can arrive, seconds since the cell's start."""
        return self.epochs * self.epoch_s


def cell_to_plain(cell: CellSpec) -> dict[str, Any]:
    """A cell as plain data, to be sent or written."""
    plain = msgspec.to_builtins(cell)
    assert isinstance(plain, dict)
    return plain


def cell_from_plain(plain: dict[str, Any]) -> CellSpec:
    """A cell that came from the wire or a file, checked.

    Raises:
        ProtocolError: a field is missing, unknown or out of bounds.
    """
    try:
        return msgspec.convert(plain, CellSpec)
    except msgspec.ValidationError as error:
        raise ProtocolError(ErrorCode.BAD_MESSAGE, f"not a cell: {error}") from None
