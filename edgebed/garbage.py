"""The garbage collector, kept from what it looks through again and again in vain: modules.

Nothing of a module is garbage, but loading one makes thousands of objects, and every so many the collector starts anew.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS_PER_COLLECTION = 100_000


@contextmanager
def loading() -> Iterator[None]:
    """Load modules without the collector, which never looks through them afterwards either. For programs that stay.

    It would take a tenth of the loading time to find out that nothing is garbage.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def collect_rarely() -> None:
    """Let the collector look after many new objects only. For commands, which load modules until they end."""
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
