"""Every message of the protocol, as types. ``docs/protocol.md`` says who sends what when.

A message is one or two ZeroMQ frames: a header (MessagePack array, the first element is the tag) and, where a message
has one, a payload in a frame of its own. Fields are only ever added at the end, with a default. Every number, length
and enum is bounded here, so that decoding is validating.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

PROTOCOL_VERSION = 1

MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 64 << 20
CHUNK_BYTES = 64 << 10
WINDOW_CHUNKS = 8

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
Text = Annotated[str, Meta(max_length=4096)]
ShortText = Annotated[str, Meta(max_length=200)]
TaskId = Annotated[str, Meta(min_length=1, max_length=160)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
SmallCount = Annotated[int, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e12)]
NotNegative = Annotated[float, Meta(ge=0.0, le=1e15)]
Instant = Annotated[float, Meta(ge=-1e12, le=1e12)]  # excludes NaN and infinities
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Floats = Annotated[list[float], Meta(max_length=1_000_000)]


class Role(StrEnum):
    """What a peer is; fixed by the allow-list, not by what the peer claims."""

    DEVICE = "device"
    SERVER = "server"
    CONTROLLER = "controller"
    ORCHESTRATOR = "orchestrator"
    EXTERNAL = "external"


class ErrorCode(StrEnum):
    """Why a message was not understood. Sent once a message, never in answer to an `Error`."""

    BAD_MESSAGE = "bad_message"
    BAD_PAYLOAD = "bad_payload"
    UNEXPECTED = "unexpected"
    NOT_INTRODUCED = "not_introduced"
    WRONG_VERSION = "wrong_version"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too_large"


class RefusalReason(StrEnum):
    """Why a task was understood and not accepted."""

    QUEUE_FULL = "queue_full"
    WRONG_CELL = "wrong_cell"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    DUPLICATE = "duplicate"
    TOO_LARGE = "too_large"
    BAD_CHANNEL = "bad_channel"
    BAD_PAYLOAD = "bad_payload"
    EXECUTION_FAILED = "execution_failed"


class _Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all headers."""


# --- the session: on every socket ------------------------------------------------------------------------------------


class Hello(_Message, tag=1):
    """A peer introduces itself; the first message on every connection, repeated until welcomed.

    Attributes:
        instance: random, new for every start of the program: tells a restart from a reconnect.
        plan_hash: the plan that it is running, empty when none.
        cell: serial of the cell that it is in, 0 when none.
    """

    protocol: SmallCount
    role: Role
    name: Name
    instance: Name
    plan_hash: ShortText = ""
    cell: SmallCount = 0


class Welcome(_Message, tag=2):
    """The peer is admitted; these limits hold from now on."""

    protocol: SmallCount
    name: Name
    instance: Name
    heartbeat_s: Seconds
    dead_after_s: Seconds
    max_payload_bytes: Count = MAX_PAYLOAD_BYTES
    chunk_bytes: Count = CHUNK_BYTES
    window_chunks: SmallCount = WINDOW_CHUNKS
    plan_hash: ShortText = ""
    cell: SmallCount = 0


class Ping(_Message, tag=3):
    """Are you there? ``sent_s`` is the sender's monotonic clock."""

    sequence: Count
    sent_s: Instant


class Pong(_Message, tag=4):
    """I am. Stamps of the answering side's monotonic clock give round trip and clock offset.

    Attributes:
        load: an edge server's features (see `edgebed.types.SERVER_FEATURES` and ``CHANNEL_FEATURES``); else empty.
    """

    sequence: Count
    sent_s: Instant
    received_s: Instant
    replied_s: Instant
    load: Floats = []


class Error(_Message, tag=5):
    """Your message was not understood or not allowed; nothing was done."""

    code: ErrorCode
    detail: Text = ""
    task_id: Annotated[str, Meta(max_length=160)] = ""


class Bye(_Message, tag=6):
    """The sender leaves on purpose."""

    reason: ShortText = ""


# --- tasks: device <-> edge server -----------------------------------------------------------------------------------


class Offer(_Message, tag=10):
    """A task for the server. With a payload frame it is complete; without, chunks follow as credits allow.

    Attributes:
        cell: serial of the cell; the server refuses any other than its own.
        frames: frames in the payload.
        channel: virtual channel of the upload.
    """

    task_id: TaskId
    cell: SmallCount
    payload_bytes: Annotated[int, Meta(ge=1, le=MAX_PAYLOAD_BYTES)]
    frames: Annotated[int, Meta(ge=1, le=1024)]
    channel: Annotated[int, Meta(ge=0, le=1023)] = 0


class Credit(_Message, tag=11):
    """The device may send this many more chunks of the upload."""

    task_id: TaskId
    chunks: Annotated[int, Meta(ge=1, le=1_000_000)]


class Chunk(_Message, tag=12):
    """Bytes ``index * chunk_bytes`` and on of an upload, in the payload frame. Chunks come in order."""

    task_id: TaskId
    index: SmallCount


class Cancel(_Message, tag=13):
    """The device no longer waits for this task; the server drops what has not started."""

    task_id: TaskId


class Refusal(_Message, tag=14):
    """The task is certainly not done here."""

    task_id: TaskId
    reason: RefusalReason
    detail: Text = ""


class TaskResult(_Message, tag=15):
    """What the server found, and when. All stamps are the server's monotonic clock.

    Attributes:
        offered_s: the offer came. received_s: its last byte came. started_s, finished_s: a worker had it.
        replied_s: this message was made.
        cpu_s: CPU seconds of the worker's thread. energy_j: marginal, None where no model or meter is.
        granted_bps: mean rate that the channel granted; 0 when not shaped.
    """

    task_id: TaskId
    predicted: Annotated[list[int], Meta(max_length=1024)]
    offered_s: Instant
    received_s: Instant
    started_s: Instant
    finished_s: Instant
    replied_s: Instant
    cpu_s: Seconds
    energy_j: NotNegative | None = None
    energy_error_j: NotNegative | None = None
    energy_source: ShortText = ""
    granted_bps: NotNegative = 0.0


# --- control: everyone <-> controller --------------------------------------------------------------------------------


class Prepare(_Message, tag=20):
    """Get ready for a cell: orchestrator -> controller -> members. Idempotent for one serial.

    Attributes:
        cell: a `edgebed.protocol.cells.CellSpec`, as plain data.
    """

    serial: SmallCount
    cell: dict[str, Any]


class Ready(_Message, tag=21):
    """A member has loaded and rendered all it needs for the cell, or says why it cannot."""

    serial: SmallCount
    member: Name
    ok: bool
    detail: Text = ""
    facts: dict[str, Any] = {}


class Start(_Message, tag=22):
    """The cell starts at ``start_s`` of the controller's monotonic clock, which is ``run_clock_s`` in the run.

    From the orchestrator ``start_s`` is a delay from now in seconds; the controller turns it into an instant.
    """

    serial: SmallCount
    start_s: Instant
    run_clock_s: Instant


class Stop(_Message, tag=23):
    """The cell is over: finish writing, forget it."""

    serial: SmallCount
    reason: ShortText = ""


class Status(_Message, tag=24):
    """Where a member stands.

    Attributes:
        state: idle, preparing, ready, running, finished (every planned task terminal), failed.
        unsent: records that nobody has acknowledged.
    """

    serial: SmallCount
    member: Name
    state: ShortText
    planned: Count = 0
    terminal: Count = 0
    unsent: Count = 0
    detail: Text = ""


class Observe(_Message, tag=25):
    """A device at a tick: ``values`` are its features, ``decide`` says whether a decision is wanted."""

    serial: SmallCount
    epoch: SmallCount
    member: Name
    values: Annotated[list[float], Meta(max_length=4096)]
    servers_up: Annotated[list[bool], Meta(max_length=1024)] = []


class Decide(_Message, tag=26):
    """What one device is to do with the tasks that waited for ``epoch``."""

    serial: SmallCount
    epoch: SmallCount
    member: Name
    site: Annotated[int, Meta(ge=0, le=2)]
    server: Annotated[int, Meta(ge=0, le=1023)]
    channel: Annotated[int, Meta(ge=0, le=1023)]
    edge_fraction: Fraction
    cpu_fraction: Fraction
    power_fraction: Fraction
    policy_version: ShortText
    decided_by: ShortText
    compute_s: Seconds


class Load(_Message, tag=27):
    """An edge server's features, to the controller (several times a second while a cell runs)."""

    serial: SmallCount
    member: Name
    values: Annotated[list[float], Meta(max_length=65536)]


class Records(_Message, tag=28):
    """Rows of the trace; the payload frame is a MessagePack list of `edgebed.trace.schema.Record`.

    Attributes:
        last: sequence number of the last row in the sender's outbox; what `Acknowledge` gives back.
    """

    member: Name
    last: Count
    count: SmallCount


class Acknowledge(_Message, tag=29):
    """The orchestrator has written all rows of ``member`` up to ``last`` to the run folder."""

    member: Name
    last: Count


class Members(_Message, tag=30):
    """Controller -> orchestrator: who is connected. Sent on every change and on request (an empty list asks)."""

    members: Annotated[list[tuple[Name, Role, bool, ShortText]], Meta(max_length=100_000)] = []


class JointObserve(_Message, tag=31):
    """Controller -> external decider: the joint observation of an epoch (arrays flattened row by row).

    Attributes:
        is_last: how things stand after the last decision of the cell; there is nothing to decide any more.
    """

    serial: SmallCount
    epoch: SmallCount
    values: Floats
    present: Annotated[list[bool], Meta(max_length=100_000)]
    age_s: Floats
    server: Floats
    allowed_actions: Annotated[bytes, Meta(max_length=1 << 20)]
    is_last: bool = False


class JointDecide(_Message, tag=32):
    """External decider -> controller: one value a slot in each list."""

    serial: SmallCount
    epoch: SmallCount
    site: Annotated[list[int], Meta(max_length=100_000)]
    server: Annotated[list[int], Meta(max_length=100_000)]
    channel: Annotated[list[int], Meta(max_length=100_000)]
    edge_fraction: Floats
    cpu_fraction: Floats
    power_fraction: Floats
    policy_version: ShortText = ""


class Weights(_Message, tag=33):
    """Orchestrator -> controller: from the next decision on, a cell's learned policy has these weights.

    The payload frame is a packed policy, see `edgebed.policies.policy_file.pack_policy`. What does not fit the cell is
    answered with an `Error`, and the policy stays as it is.

    Attributes:
        version: what rows decided by it say.
    """

    serial: SmallCount
    version: ShortText


SessionMessage = Hello | Welcome | Ping | Pong | Error | Bye
TaskMessage = SessionMessage | Offer | Credit | Chunk | Cancel | Refusal | TaskResult
ControlMessage = (
    SessionMessage
    | Prepare
    | Ready
    | Start
    | Stop
    | Status
    | Observe
    | Decide
    | Load
    | Records
    | Acknowledge
    | Members
    | JointObserve
    | JointDecide
    | Weights
)
AnyMessage = TaskMessage | ControlMessage
