"""Which Raspberry Pi this is: revision codes, and the names of boards.

The code's bits are those of "Raspberry Pi revision codes" in the vendor's documentation, new style (bit 23 set)::

    NOQuuuWuFMMMCCCCPPPPTTTTTTTTRRRR      M memory, C manufacturer, P processor, T type, R revision
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEW_STYLE_BIT = 23
_MEMORY_MB = (256, 512, 1024, 2048, 4096, 8192, 16384)
_TYPES = {
    0x04: "2 Model B",
    0x08: "3 Model B",
    0x09: "Zero",
    0x0A: "Compute Module 3",
    0x0C: "Zero W",
    0x0D: "3 Model B+",
    0x0E: "3 Model A+",
    0x11: "4 Model B",
    0x12: "Zero 2 W",
    0x13: "400",
    0x14: "Compute Module 4",
    0x17: "5",
    0x18: "Compute Module 5",
    0x19: "500",
}

MODEL_OF_BOARD = {
    "raspberry-pi-zero-w": "Raspberry Pi Zero W",
    "raspberry-pi-3b": "Raspberry Pi 3 Model B Rev",
    "raspberry-pi-3b-plus": "Raspberry Pi 3 Model B Plus",
    "raspberry-pi-4b": "Raspberry Pi 4 Model B",
    "raspberry-pi-400": "Raspberry Pi 400",
    "raspberry-pi-5": "Raspberry Pi 5 Model B",
}
"""How the firmware's model text of each shipped board begins."""

HOT_AT_C = {"raspberry-pi-3b-plus": 60.0}
"""Where a board begins to slow down; 80 for the other Pis."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A decoded revision code.

    Attributes:
        memory_mb: that the board was made with.
        revision: the board's, as in 1.4.
    """

    code: int
    kind: str
    memory_mb: int
    revision: str


def parse_revision(cpuinfo: str) -> Revision | None:
    """The revision of a ``/proc/cpuinfo``; None where there is none, or one of the old style (before the Pi 2)."""
    match = re.search(r"^Revision\s*:\s*([0-9a-fA-F]{4,8})\s*$", cpuinfo, re.MULTILINE)
    if match is None:
        return None
    code = int(match[1], 16)
    memory = code >> 20 & 0x7
    if not code >> _NEW_STYLE_BIT & 1 or memory >= len(_MEMORY_MB):
        return None
    kind = _TYPES.get(code >> 4 & 0xFF, f"type 0x{code >> 4 & 0xFF:x}")
    return Revision(code, kind, _MEMORY_MB[memory], f"1.{code & 0xF}")


def board_of_model(model: str) -> str | None:
    """The shipped board of a firmware's model text; None when it is of none of them."""
    return next((board for board, start in MODEL_OF_BOARD.items() if model.startswith(start)), None)
