"""Files that are written whole: a reader sees the old one or the new one, and so does who looks after a crash."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, or write it anew, in one step.

    Args:
        path: its folder exists. For a moment a hidden file lies beside it.
        content: all of it; it is on the disk before the name is.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
