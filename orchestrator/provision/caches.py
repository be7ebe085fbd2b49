"""What the orchestrator builds for hosts and keeps between deploys, in the user's cache folder."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Where things of a kind are cached: ``$XDG_CACHE_HOME/edgebed/<kind>``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path there is to be ignored.
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "edgebed" / kind


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that others find all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Delete all but the newest files that match, so that a cache does not grow with every change."""

    def age_key(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    for path in sorted(folder.glob(pattern), key=age_key, reverse=True)[count:]:
        with suppress(OSError):  # someone else has deleted it, or is using it
            path.unlink()
