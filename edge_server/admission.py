"""What the server has promised to do, and what it refuses: pure, bounded by tasks and by bytes.

Everything that is held for a device is a `HeldTask` in one table, from its offer to its answer. What an offer claims
is counted at once, so uploads in progress can never grow beyond the limits, whatever is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from edgebed.protocol.front import Session
from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS, Offer, Refusal, RefusalReason
from workloads.base import Payload


class HeldTask(msgspec.Struct, eq=False):
    """A task that the server has admitted and not yet answered.

    All stamps are the server's monotonic clock.

    Attributes:
        session: who offered it.
        chunks: how many make up the payload. credited: how many of them the device may have sent.
        parts: the bytes that have come. payload: all of them, once the last has come.
        is_released: it is out of the table.
        is_abandoned: nobody waits for the answer any more.
        predicted: what the worker found, or None when ``problem`` says why it found nothing.
        granted_bps: mean rate that its channel granted; 0 when the channel is not shaped.
    """

    session: Session
    task_id: str
    frames: int
    channel: int
    payload_bytes: int
    offered_s: float
    chunks: int
    credited: int = 0
    received_bytes: int = 0
    parts: list[Payload] = []
    payload: Payload | None = None
    is_released: bool = False
    is_abandoned: bool = False
    received_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    cpu_s: float = 0.0
    granted_bps: float = 0.0
    predicted: list[int] | None = None
    problem: tuple[RefusalReason, str] | None = None

    @property
    def is_uploading(self) -> bool:
        """Are bytes of it still to come?"""
        return self.payload is None and not self.is_released

    @property
    def key(self) -> tuple[str, str]:
        """Its place in the table: names of tasks are the devices' own."""
        return self.session.name, self.task_id

    def refusal(self, reason: RefusalReason, detail: str) -> Refusal:
        """The message that says no to it."""
        return Refusal(self.task_id, reason, detail[:400])


@dataclass(slots=True)
class ServedCell:
    """What of a cell decides about admission.

    Attributes:
        serial: number of the cell that is prepared; 0 = none.
        ready: the workers have loaded its workload.
        channels: how many virtual channels there are.
        shaped: the channels grant credits; else uploads go as fast as the window lets them.
    """

    serial: int = 0
    ready: bool = False
    channels: int = 1
    shaped: bool = False


class Admission:
    """The table of held tasks and its limits.

    Args:
        max_tasks, max_bytes: bounds of what is admitted and not answered.
        chunk_bytes, window_chunks: what devices are told in the Welcome.

    Attributes:
        cell: the cell that tasks must belong to.
        draining: True once the server is on its way out.
        held_bytes: payload bytes that the held tasks claim.
        uploading_bytes: of these, what has not come yet.
    """

    def __init__(
        self, max_tasks: int, max_bytes: int, chunk_bytes: int = CHUNK_BYTES, window_chunks: int = WINDOW_CHUNKS
    ) -> None:
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._chunk_bytes = chunk_bytes
        self._window_chunks = window_chunks
        self._most_inline_bytes = chunk_bytes * window_chunks
        self.cell = ServedCell()
        self.draining = False
        self.held_bytes = 0
        self.uploading_bytes = 0
        self._tasks: dict[tuple[str, str], HeldTask] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[HeldTask]:
        return iter(list(self._tasks.values()))

    def get(self, device: str, task_id: str) -> HeldTask | None:
        """The task that a device calls so, if it is held."""
        return self._tasks.get((device, task_id))

    # -- offers -------------------------------------------------------------------------------------------------------

    def offer(self, session: Session, offer: Offer, payload: Payload | None, now_s: float) -> HeldTask | Refusal:
        """Admit a task or say why not.

        Args:
            session: who offers it.
            offer: the message.
            payload: the whole clip where it came with the offer; else it comes in chunks.
            now_s: when the offer came.

        Returns:
            The task, complete if its payload came along.
        """
        size, key, cell = offer.payload_bytes, (session.name, offer.task_id), self.cell
        # The common case at one glance; who is refused is told why by going through it step by step.
        if (
            self.draining
            or offer.cell != cell.serial
            or not cell.ready
            or offer.channel >= cell.channels
            or key in self._tasks
            or len(self._tasks) >= self._max_tasks
            or self.held_bytes + size > self._max_bytes
            or (payload is not None and (len(payload) != size or cell.shaped or size > self._most_inline_bytes))
        ):
            return Refusal(offer.task_id, *self._why_not(key, offer, payload))
        task = HeldTask(
            session,
            offer.task_id,
            offer.frames,
            offer.channel,
            size,
            now_s,
            -(-size // self._chunk_bytes),
            0 if cell.shaped else self._window_chunks,
        )
        self._tasks[key] = task
        self.held_bytes += size
        if payload is None:
            self.uploading_bytes += size
        else:
            task.payload, task.received_bytes = payload, size
            task.received_s = now_s
        return task

    def _why_not(self, key: tuple[str, str], offer: Offer, payload: Payload | None) -> tuple[RefusalReason, str]:
        cell, size = self.cell, offer.payload_bytes
        if self.draining:
            return RefusalReason.DRAINING, "the server is shutting down"
        if offer.cell != cell.serial:
            return RefusalReason.WRONG_CELL, f"the server serves cell {cell.serial}, not {offer.cell}"
        if not cell.ready:
            return RefusalReason.NOT_READY, "the workload is still being loaded"
        if offer.channel >= cell.channels:
            return RefusalReason.BAD_CHANNEL, f"channel {offer.channel}; the cell has {cell.channels}"
        if key in self._tasks:
            return RefusalReason.DUPLICATE, "this task is already here"
        if size > self._max_bytes:
            return RefusalReason.TOO_LARGE, f"{size} bytes; this server holds {self._max_bytes} at most"
        if payload is not None and len(payload) != size:
            return RefusalReason.BAD_PAYLOAD, f"{len(payload)} bytes came; the offer says {size}"
        if payload is not None and cell.shaped:
            return RefusalReason.BAD_PAYLOAD, "on a shaped channel the payload follows in chunks, as credits allow"
        if payload is not None and size > self._most_inline_bytes:
            return (
                RefusalReason.TOO_LARGE,
                f"{size} bytes in one message; more than {self._most_inline_bytes} go in chunks",
            )
        if len(self._tasks) >= self._max_tasks:
            return RefusalReason.QUEUE_FULL, f"{len(self._tasks)} tasks are here; at most {self._max_tasks}"
        return RefusalReason.QUEUE_FULL, f"{self.held_bytes} bytes are here and {size} more; at most {self._max_bytes}"

    # -- uploads ------------------------------------------------------------------------------------------------------

    def chunk(self, task: HeldTask, index: int, data: Payload, now_s: float) -> tuple[RefusalReason, str] | None:
        """Take the next piece of an upload; the last one makes the task complete.

        Returns:
            What is wrong with the piece, or None. A task with a wrong piece is of no use: release it.
        """
        expected = len(task.parts)
        if not task.is_uploading or index != expected:
            return RefusalReason.BAD_PAYLOAD, f"chunk {index} came; {expected} was expected"
        if index >= task.credited:
            return RefusalReason.BAD_PAYLOAD, f"chunk {index} came without a credit"
        left = task.payload_bytes - task.received_bytes
        if len(data) != min(self._chunk_bytes, left):
            return RefusalReason.BAD_PAYLOAD, f"chunk {index} has {len(data)} bytes, not {min(self._chunk_bytes, left)}"
        task.parts.append(data)
        task.received_bytes += len(data)
        self.uploading_bytes -= len(data)
        if task.received_bytes == task.payload_bytes:
            task.payload = data if len(task.parts) == 1 else b"".join(task.parts)
            task.parts = []
            task.received_s = now_s
        return None

    def credit_due(self, task: HeldTask) -> int:
        """How many more chunks an upload on an unshaped channel may send now; asking grants them.

        Credits go out by the half window, which keeps the pipe full with a quarter of the messages.
        """
        allowed = min(task.chunks, len(task.parts) + self._window_chunks) - task.credited
        is_last = task.credited + allowed == task.chunks
        if allowed < self._window_chunks // 2 and not is_last:
            return 0
        task.credited += max(0, allowed)
        return max(0, allowed)

    # -- endings ------------------------------------------------------------------------------------------------------

    def release(self, task: HeldTask) -> None:
        """Forget a task and free what it claims. Repeating it does no harm."""
        if task.is_released:
            return
        task.is_released = True
        del self._tasks[task.key]
        self.held_bytes -= task.payload_bytes
        self.uploading_bytes -= task.payload_bytes - task.received_bytes
        task.payload = None
        task.parts = []
