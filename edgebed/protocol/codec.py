"""Messages to frames and back. Decoding validates: what comes out satisfies every bound in `messages`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from edgebed.errors import ProtocolError
from edgebed.protocol.messages import (
    MAX_HEADER_BYTES,
    AnyMessage,
    Bye,
    ControlMessage,
    Error,
    ErrorCode,
    Hello,
    Ping,
    Pong,
    TaskMessage,
    Welcome,
)

M = TypeVar("M")

encode: Callable[[AnyMessage], bytes] = msgspec.msgpack.Encoder().encode
"""The header frame of a message."""


class HeaderDecoder(Generic[M]):
    """Decodes the headers of one service; safe to share between threads."""

    def __init__(self, union: object) -> None:
        self._decode: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(union).decode

    def decode(self, header: bytes | memoryview) -> M:
        """The message in a header frame.

        Raises:
            ProtocolError: not MessagePack, an unknown tag, or a value out of bounds.
        """
        if len(header) > MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.TOO_LARGE, f"a header of {len(header)} bytes; at most {MAX_HEADER_BYTES}")
        try:
            message: M = self._decode(header)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, str(error)[:200]) from None
        return message


task_headers: HeaderDecoder[TaskMessage] = HeaderDecoder(TaskMessage)
control_headers: HeaderDecoder[ControlMessage] = HeaderDecoder(ControlMessage)

SESSION_KINDS: frozenset[type] = frozenset({Hello, Welcome, Ping, Pong, Error, Bye})
"""Messages that the sessions themselves deal with, on every service."""
