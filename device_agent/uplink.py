"""The uplink to one edge server: one upload at a time, in order, in chunks, as fast as pace and credits allow.

Pure: time goes in, messages come out through ``send``. A chunk leaves when the emulated link would have finished
carrying it (``link_rate_bps``) and when the server has granted a credit for it, whichever comes last.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS, AnyMessage, Chunk, Offer

RETRY_S = 0.005
"""How long to wait when the socket's buffer is full."""


class Upload(Struct, eq=False):
    """A payload on its way, or waiting for it.

    Attributes:
        read: gives the payload; called when the upload begins.
        started_s: when the Offer was sent; None before.
        sent_s: when the last byte was handed to the network; None before.
    """

    task_id: str
    payload_bytes: int
    frames: int
    channel: int
    read: Callable[[], bytes]
    started_s: float | None = None
    sent_s: float | None = None


@dataclass(slots=True)
class _Transfer:
    """The upload in progress."""

    upload: Upload
    payload: memoryview
    chunk_bytes: int
    credits: int
    next_index: int = 0

    @property
    def chunks(self) -> int:
        return -(-len(self.payload) // self.chunk_bytes)

    def carried_bytes(self, index: int) -> int:
        """Bytes up to and including a chunk."""
        return min(len(self.payload), (index + 1) * self.chunk_bytes)


class Uplink:
    """What waits for, and what is on, the way to one edge server.

    Args:
        cell: serial of the cell, for the Offers.
        send: hands a message to the link; False when it was not taken, then it is tried again.
        link_rate_bps: pace to this rate; 0 = as fast as the network.
        is_shaped: the server grants every chunk, so that none is sent before its first Credit.
        limits: chunk size and initial window, as the server's Welcome said.
    """

    def __init__(
        self,
        cell: int,
        send: Callable[[AnyMessage, bytes | memoryview | None], bool],
        *,
        link_rate_bps: float = 0.0,
        is_shaped: bool = False,
        limits: Callable[[], tuple[int, int]] = lambda: (CHUNK_BYTES, WINDOW_CHUNKS),
    ) -> None:
        self._cell = cell
        self._send = send
        self._rate_bps = link_rate_bps
        self._is_shaped = is_shaped
        self._limits = limits
        self._queue: deque[Upload] = deque()
        self._transfer: _Transfer | None = None

    @property
    def queued_bytes(self) -> int:
        """Bytes that have not been handed to the network yet."""
        waiting = sum(upload.payload_bytes for upload in self._queue)
        transfer = self._transfer
        if transfer is not None:
            waiting += len(transfer.payload) - transfer.next_index * transfer.chunk_bytes
        return waiting

    @property
    def current(self) -> Upload | None:
        """The upload in progress."""
        return None if self._transfer is None else self._transfer.upload

    def add(self, upload: Upload) -> None:
        """Queue an upload."""
        self._queue.append(upload)

    def credit(self, task_id: str, chunks: int) -> None:
        """The server grants more chunks; credits for anything but the current upload come too late and are dropped."""
        if self._transfer is not None and self._transfer.upload.task_id == task_id:
            self._transfer.credits += chunks

    def remove(self, upload: Upload) -> bool:
        """Forget an upload that has not been sent completely; False when it has, or is not known here."""
        if self._transfer is not None and self._transfer.upload is upload:
            self._transfer = None
            return True
        try:
            self._queue.remove(upload)
        except ValueError:
            return False
        return True

    def take_all(self) -> list[Upload]:
        """Forget all uploads that have not been sent completely, and return them in order."""
        taken = ([self._transfer.upload] if self._transfer is not None else []) + list(self._queue)
        self._transfer = None
        self._queue.clear()
        return taken

    def advance(self, now_s: float) -> float:
        """Send all that may be sent now.

        Returns:
            When there will be more to send; infinite when that depends on others (credits, or a new upload).
        """
        while True:
            if self._transfer is None:
                if not self._queue:
                    return math.inf
                if not self._begin(self._queue[0], now_s):
                    return now_s + RETRY_S
                continue
            due_s = self._send_chunks(self._transfer, now_s)
            if self._transfer is not None:
                return due_s

    def _begin(self, upload: Upload, now_s: float) -> bool:
        chunk_bytes, window = self._limits()
        payload = upload.read()
        offer = Offer(upload.task_id, self._cell, len(payload), upload.frames, upload.channel)
        is_whole = not self._is_shaped and not self._rate_bps and len(payload) <= chunk_bytes * window
        if not self._send(offer, payload if is_whole else None):
            return False
        self._queue.popleft()
        upload.started_s = now_s
        if is_whole:
            upload.sent_s = now_s
        else:
            self._transfer = _Transfer(upload, memoryview(payload), chunk_bytes, 0 if self._is_shaped else window)
        return True

    def _send_chunks(self, transfer: _Transfer, now_s: float) -> float:
        """Send what may be sent of the current upload; when the next chunk is due, if that is known."""
        started_s = transfer.upload.started_s
        assert started_s is not None
        while transfer.next_index < transfer.chunks:
            if not transfer.credits:
                return math.inf
            index = transfer.next_index
            end = transfer.carried_bytes(index)
            due_s = started_s + 8 * end / self._rate_bps if self._rate_bps else now_s
            if due_s > now_s:
                return due_s
            piece = transfer.payload[index * transfer.chunk_bytes : end]
            if not self._send(Chunk(transfer.upload.task_id, index), piece):
                return now_s + RETRY_S
            transfer.next_index += 1
            transfer.credits -= 1
        transfer.upload.sent_s = now_s
        self._transfer = None
        return now_s
