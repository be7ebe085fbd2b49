"""What installed packages add to edgebed, by entry points: read once, because every installed package is asked."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint, EntryPoints


def points_of(group: str) -> list[EntryPoint]:
    """The entry points of a group, such as ``edgebed.policies``, in the order in which packages are found."""
    return list(_selecting()(group=group))


@cache
def _selecting() -> Callable[..., EntryPoints]:
    # Imported here: a program that needs no entry points need not spend the 3 MB that reading metadata takes.
    from importlib.metadata import entry_points

    return entry_points().select
