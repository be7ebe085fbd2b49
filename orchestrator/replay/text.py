"""What a replay is, in sentences: for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def replay_lines(replay: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about a replay; none for a run that is none.

    Args:
        replay: as the manifest has it.
    """
    if not replay:
        return
    source = replay["source"]
    yield f"A replay ({replay['mode']}) of {source['run_id']}, which ran on the backend {source['backend']}."
    if "shares" in replay:
        yield from _shares(replay)
    for row in replay.get("repeatability", ()):
        yield _repeated(row)


def _shares(replay: Mapping[str, Any]) -> Iterator[str]:
    shares = replay["shares"]
    told = ", ".join(f"{_percent(share)} {name}" for name, share in shares.items())
    yield (
        f"Rows: {told}. Recorded: decided as then, and all queues it met were as long as then. Recomputed: recorded "
        "ingredients, queues anew. Modelled: an ingredient comes from a profile."
    )
    error = replay["queue_error"]
    if error["tasks"]:
        yield (
            f"Recomputing the queues of the {error['tasks']} recorded done tasks with their recorded decisions gives "
            f"their latency with a bias of {_percent(error['bias'])} and a mean absolute error of "
            f"{_percent(error['mean_absolute'])} of the mean."
        )
    model = replay["model"]
    if model is not None:
        yield f"The profile is {model['kind']}, its error {model['sample']}: {_model_errors(model['errors'])}."
        if model["note"]:
            yield model["note"]
    for cell, why in replay["event_by_event"].items():
        yield f"Cell {cell} was computed event by event: {why}."


def _model_errors(errors: Mapping[str, Any]) -> str:
    parts = [
        f"service at {site} bias {_percent(each['bias'])}, mean absolute {_percent(each['mean_absolute'])} "
        f"over {each['tasks']} tasks"
        for site, each in errors.items()
        if each["tasks"]
    ]
    return "; ".join(parts) or "nothing recorded to compare it with"


def _repeated(row: Mapping[str, Any]) -> str:
    told = f"{row['policy']}: {row['same_decision']} of {row['tasks']} tasks decided as recorded"
    if row["latency_s"] is None:
        return f"{told}; no task was done both times"
    return (
        f"{told}; latency differs by {1e3 * row['latency_s']:+.3g} ms in the mean, "
        f"{1e3 * row['absolute_s']:.3g} ms task by task, of {1e3 * row['recorded_s']:.3g} ms"
    )


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.3g} %"
