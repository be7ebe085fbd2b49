"""What runs the cells of a learner: in this process, in processes of their own, or on Ray.

The only place in the library that starts processes.
"""

from __future__ import annotations

from importlib.util import find_spec

from edgebed.errors import BadInput, MissingExtra
from edgebed.learning.base import Executor

EXECUTORS = ("inline", "processes", "ray")

__all__ = ["EXECUTORS", "check_name", "make_executor"]


def make_executor(name: str, ray_address: str | None = None) -> Executor:
    """Make an executor; close it after use, best by ``with``.

    Args:
        name: one of `EXECUTORS`.
        ray_address: a running Ray cluster's, as in ``10.0.0.1:6379``; without it Ray is started on this machine.

    Raises:
        BadInput: there is no such executor, or an address was given to one that has none.
        MissingExtra: Ray is not installed.
    """
    check_name(name, ray_address)
    if name == "inline":
        from edgebed.learning.executor.inline import InlineExecutor

        return InlineExecutor()
    if name == "processes":
        from edgebed.learning.executor.processes import ProcessExecutor

        return ProcessExecutor()
    from edgebed.learning.executor.ray import RayExecutor

    return RayExecutor(ray_address)


def check_name(name: str, ray_address: str | None = None) -> None:
    """Does this executor exist, and is it installed? Starts nothing.

    Raises:
        BadInput: there is no such executor, or an address was given to one that has none.
        MissingExtra: Ray is not installed.
    """
    if name not in EXECUTORS:
        raise BadInput(f"executor: there is no {name!r}; allowed: {', '.join(EXECUTORS)}")
    if ray_address is not None and name != "ray":
        raise BadInput(f"an address of a Ray cluster goes with the executor ray, not with {name}")
    if name == "ray" and find_spec("ray") is None:
        raise MissingExtra("ray", "the executor ray")
