"""The same summary as the HTML report's, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgebed.errors import MissingExtra
from edgebed.trace.runs import Run
from orchestrator.report import text
from orchestrator.report.summary import PolicySummary, Summary, summarise
from orchestrator.statistics import Relation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_FILES = 200

_COLOUR_OF_VERDICT = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_COLOUR_OF_RELATION = {Relation.BELOW: "green", Relation.ABOVE: "red"}


def terminal(*, to_standard_error: bool = False) -> Console:
    """Where tables are printed; wide when it is not a terminal, so that nothing is cut off in a file.

    Raises:
        MissingExtra: rich is not installed.
    """
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        raise MissingExtra("orchestrator", "printing a table") from None
    console = Console(stderr=to_standard_error, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    return console


def print_summary(run: Run | Summary, console: Console | None = None) -> Summary:
    """Print what a sealed run found.

    Args:
        run: or its summary, if it has been made already.
        console: where to; standard output by default.

    Raises:
        BadInput: the run has not been sealed.
        MissingExtra: rich or DuckDB is not installed.
    """
    console = console or terminal()
    from rich.text import Text

    summary = run if isinstance(run, Summary) else summarise(run)
    manifest = summary.manifest
    console.print()
    console.print(Text(f"{manifest.experiment}  {summary.path}", style="bold"))
    verdict = manifest.verdict or "not judged"
    console.print(
        Text.assemble(
            "verdict ",
            (verdict, f"bold {_COLOUR_OF_VERDICT.get(verdict, '')}"),
            f", state {manifest.state}; {_counted(summary)}",
        )
    )
    for line in (*manifest.reasons, *summary.notices):
        console.print(Text(f"  {line}", style="yellow"))
    if summary.policies:
        console.print(_policy_table(summary))
        console.print(Text(_footnote(summary), style="dim"))
    if summary.comparisons:
        console.print(_pair_table(summary))
    return summary


def _counted(summary: Summary) -> str:
    counts = summary.counts
    return f"{counts['planned']} tasks: {counts['done']} done, {counts['failed']} failed, {counts['unknown']} unknown"


def _policy_table(summary: Summary) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    energy = f"energy ({summary.energy_label.partition(':')[0]})" if summary.energy_label else "energy"
    table.add_column("policy", no_wrap=True)
    for heading in ("n", "latency", "p95", "missed", "recognised", "CPU", energy, "offloaded"):
        table.add_column(heading, justify="right")
    for policy in summary.policies:
        table.add_row(*_cells(policy))
    return table


def _cells(policy: PolicySummary) -> Iterator[str]:
    measures = policy.measures
    yield _plain(policy.name)
    yield str(len(policy.seeds))
    yield f"{text.mean(measures['latency_s'], 'latency_s')} {_plain(text.bounds(measures['latency_s'], 'latency_s'))}"
    yield text.milliseconds(policy.p95_s)
    yield text.mean(measures["miss_rate"], "miss_rate") + (f", {policy.unknown} unknown" if policy.unknown else "")
    yield ", ".join(f"{site.site} {100 * site.share:.1f} %" for site in policy.accuracy) or text.NOT_KNOWN
    yield text.mean(measures["cpu_s"], "cpu_s")
    error = measures["energy_error_j"]
    yield text.mean(measures["energy_j"], "energy_j") + (f" ± {text.number(error.mean)}" if error else "")
    offloaded = measures["offload_share"]
    yield text.percent(offloaded.mean if offloaded else None)


def _footnote(summary: Summary) -> str:
    left_out = sum(summary.left_out.values())
    return (
        "n seeds; mean [95 % t-interval over seeds]; missed counts failed tasks; ± is the stated error of the energy"
        + (f"; {left_out} tasks of warm-up or never run are left out" if left_out else "")
    )


def _pair_table(summary: Summary) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    for heading in ("paired difference", "latency", "missed", "energy"):
        table.add_column(heading)
    for pair in summary.comparisons:
        cells = [Text(f"{pair.first} {text.MINUS} {pair.second}")]
        for measure, found in pair.differences.items():
            style = _COLOUR_OF_RELATION.get(found.relation, "dim")
            cells.append(Text(f"{text.difference(found, measure)}  {text.RELATION_WORDS[found.relation]}", style=style))
        table.add_row(*cells)
    return table


def _plain(words: str) -> str:
    """Words whose brackets are not taken for markup."""
    return words.replace("[", "\\[")
