"""What an online learner and whoever runs an experiment tell each other, over two pipes.

Each message is a 4-byte little-endian length and a MessagePack array whose first element is the tag. The learner is a
program of its own (`edgebed.learning.online`): when it dies or lags, the experiment goes on with the weights that it
has.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgspec

from edgebed.errors import WorkFailed

LENGTH = struct.Struct("<I")
MAX_BYTES = 256 << 20


class _Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all."""


class Begin(_Message, tag=1):
    """A cell begins; what is left of an earlier one is forgotten.

    Attributes:
        weights: the packed policy that it begins with, see `edgebed.policies.policy_file.pack_policy`.
        learner: registered name of the learner.
        options: the learner's settings that differ from how the policy was trained.
        slots, servers, channels: what the cell's observations are made of, see `edgebed.types.ObservationSpec`.
        tasks, patience_epochs: see `edgebed.learning.experience.Experience`.
    """

    serial: int
    weights: bytes
    learner: str
    seed: int
    slots: list[str]
    servers: list[str]
    channels: int
    tasks: list[list[int]]
    patience_epochs: int
    options: dict[str, Any] = {}


class Rows(_Message, tag=2):
    """Rows of the trace as they came: the MessagePack of `edgebed.trace.schema.TaskRecord` and ``EpochRecord``."""

    serial: int
    tasks: list[bytes]
    epochs: list[bytes]


class End(_Message, tag=3):
    """The cell is over: nothing more is published for it."""

    serial: int


class Learned(_Message, tag=10):
    """New weights.

    Attributes:
        version: what rows decided by them will say.
        transitions: joint transitions that were learned from so far. updates: gradient steps so far.
        seconds: that learning took since the weights before.
        losses: of the last update, by name.
    """

    serial: int
    version: str
    weights: bytes
    transitions: int
    updates: int
    seconds: float
    losses: dict[str, float]


class Troubled(_Message, tag=11):
    """The learner cannot go on with this cell; the last good weights stay."""

    serial: int
    problem: str


class Awake(_Message, tag=12):
    """The learner is there, with all that it has to load.

    Attributes:
        serial: of the cell that it is ready for; 0 before the first.
    """

    serial: int = 0


ToLearner = Begin | Rows | End
FromLearner = Learned | Troubled | Awake

_encode = msgspec.msgpack.Encoder().encode


def write_message(stream: BinaryIO, message: ToLearner | FromLearner) -> None:
    """Write a message and flush.

    Raises:
        OSError: nobody reads any more.
    """
    body = _encode(message)
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def read_message(stream: BinaryIO, kinds: Any) -> Any:
    """The next message of the union ``kinds``; None at the end.

    Raises:
        WorkFailed: the stream ends inside of a message, or has something else in it.
    """
    prefix = stream.read(LENGTH.size)
    if not prefix:
        return None
    length = LENGTH.unpack(prefix)[0] if len(prefix) == LENGTH.size else 0
    body = stream.read(length) if 0 < length <= MAX_BYTES else b""
    if not body or len(body) < length:
        raise WorkFailed("a message between learner and experiment was cut off")
    try:
        return msgspec.msgpack.decode(body, type=kinds)
    except msgspec.MsgspecError as error:
        raise WorkFailed(f"a message between learner and experiment is none: {error}") from None
