"""ONNX Runtime, kept from calling home.

From version 1.29 its Linux builds send usage data to their maker unless told not to: every program that recognises
would open connections to the outside, on measured time, from hosts that may have no way out. Import it from here and
nowhere else (a test looks), so that the switch is set before the library is loaded.
"""

from __future__ import annotations

import os

# Read when the library starts. Whoever wants the data sent can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
