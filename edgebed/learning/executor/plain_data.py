"""Plain data as bytes: what passes between a driver and its cells, on every executor and without pickle.

MessagePack, with one extension type for arrays: a NumPy dtype text, the shape, and the bytes in C order. All executors
pass data through this, the inline one too, so that a learner cannot come to depend on a shared array, on the order of
an array in memory, or on anything but plain data.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput

_ARRAY = 1
_KINDS = "biufSU"  # bool, integers, floats, texts of fixed length: none can hold a Python object


def encode(data: Any) -> bytes:
    """Plain data as bytes.

    Raises:
        BadInput: there is something else in it; what it is, is named.
    """
    try:
        return _ENCODER.encode(data)
    except (TypeError, OverflowError) as error:
        raise BadInput(f"{error}; a driver and its cells exchange numbers, texts, arrays, lists and dicts") from None


def decode(content: bytes | bytearray | memoryview) -> Any:
    """What `encode` was given; tuples come back as lists, arrays as writable ones in C order.

    Raises:
        BadInput: these bytes are not what `encode` made.
    """
    try:
        return _DECODER.decode(content)
    except (msgspec.DecodeError, struct.error, ValueError, TypeError) as error:
        raise BadInput(f"not a message between a driver and its cells: {error}") from None


def _array_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {array.dtype}")
    dtype = array.dtype.str.encode()
    header = struct.pack(f"<BB{array.ndim}q", len(dtype), array.ndim, *array.shape)
    return header + dtype + array.tobytes()


def _array(content: memoryview) -> NDArray[Any]:
    length, dimensions = struct.unpack_from("<BB", content)
    shape = struct.unpack_from(f"<{dimensions}q", content, 2)
    start = 2 + 8 * dimensions
    dtype = np.dtype(bytes(content[start : start + length]).decode())
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype}")
    # A copy: what lies in the message is read-only, and PyTorch warns about such arrays.
    return np.frombuffer(content[start + length :], dtype=dtype).reshape(shape).copy()


def _encode_other(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return msgspec.msgpack.Ext(_ARRAY, _array_bytes(value))
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain data")


def _decode_extension(code: int, content: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension type {code} is unknown")
    return _array(content)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_DECODER = msgspec.msgpack.Decoder(ext_hook=_decode_extension)
