"""The ``edgebed`` command: a table of verbs, and the dispatch to the one module that a verb needs.

Nothing but this table is imported before a verb is known, so that ``edgebed --help`` answers at once.

A verb's module has
    - a docstring whose first line is the verb's line in `VERBS` (a test compares them),
    - ``EXAMPLES``, command lines that its help shows,
    - ``command``, a function with typer annotations, or ``app``, made by `new_application`, with sub-verbs. What it
      returns is the exit status, None meaning 0. It raises `edgebed.errors.EdgebedError` and lets `KeyboardInterrupt`
      through.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgebed.garbage import collect_rarely

if TYPE_CHECKING:
    from types import ModuleType

    import typer

PROGRAM = "edgebed"


class Verb(NamedTuple):
    """A verb of the command line, its module, and the first line of that module's docstring."""

    name: str
    module: str
    summary: str


VERBS: tuple[Verb, ...] = (
    Verb("init", "orchestrator.cli.init", "Make a starter inventory and experiment; never overwrites."),
    Verb(
        "check",
        "orchestrator.cli.check",
        "Examine hosts: reachability, clocks, throttling, Wi-Fi, disk, versions; each finding with its fix.",
    ),
    Verb("plan", "orchestrator.cli.plan", "Show what would run: cells, hours, tasks, bytes; touches nothing."),
    Verb("deploy", "orchestrator.cli.deploy", "Install edgebed on hosts; the second time changes nothing."),
    Verb("run", "orchestrator.cli.run", "Run an experiment: on its hosts, simulated, or on a recorded day."),
    Verb("resume", "orchestrator.cli.resume", "Finish a run or a training: only what is missing is run."),
    Verb(
        "watch",
        "orchestrator.cli.watch",
        "Watch a run or a training while it goes on: cells, tasks, policies so far, events; it only reads.",
    ),
    Verb("runs", "orchestrator.cli.runs", "Look into runs: list them, show one, query one with SQL."),
    Verb("report", "orchestrator.cli.report", "Write one self-contained HTML report of runs."),
    Verb(
        "evaluate",
        "orchestrator.cli.evaluate",
        "Evaluate a policy in a scenario: fixed episodes, simulated, with an interval.",
    ),
    Verb("train", "orchestrator.cli.train", "Train policies in a scenario, with one learner, all seeds at once."),
    Verb(
        "calibrate",
        "orchestrator.cli.calibrate",
        "Fit a profile of the testbed to runs: service times, links, delays, energy.",
    ),
    Verb(
        "validate",
        "orchestrator.cli.validate",
        "Compare a profile with runs: errors with intervals, distributions, the ranking of policies.",
    ),
    Verb(
        "import",
        "orchestrator.cli.import_",
        "Make a run folder of a foreign trace: a CSV file, and a mapping of its columns.",
    ),
    Verb(
        "export",
        "orchestrator.cli.export",
        "Write a run for other tools: its tables as CSV, or its decisions as Minari datasets.",
    ),
    Verb(
        "replay",
        "orchestrator.cli.replay",
        "Replay a run: its decisions or its arrivals on hosts again, or another policy on its day without hosts.",
    ),
    Verb("clean", "orchestrator.cli.clean", "Undo every change that deploy made on hosts."),
    Verb("trust", "orchestrator.cli.trust", "Pin host keys anew, after a host was flashed or replaced."),
    Verb("release", "orchestrator.cli.release", "Take hosts from an orchestrator that is gone."),
    Verb(
        "lab",
        "orchestrator.cli.lab",
        "Virtual Pis on this machine, with SSH, systemd, links and sensors (Linux, root).",
    ),
    Verb(
        "list",
        "orchestrator.cli.list_",
        "List the policies, scenarios, learners, workloads, boards or meters that there are.",
    ),
)

# Import names of what the extra [orchestrator] brings; a missing one is a message, not a traceback.
_ORCHESTRATOR_PACKAGES = frozenset(
    {"paramiko", "pydantic", "typer", "rich", "duckdb", "matplotlib", "jinja2", "scipy", "cryptography"}
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    collect_rarely()
    try:
        status = _answer(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 1
    return status


def _drop_output() -> None:
    """Whoever read standard output (``| head``) has left: what is still to be written there goes nowhere.

    The status is 1, as typer's own for the same case, and not a traceback at the interpreter's last flush.
    """
    import os

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _answer(given: list[str]) -> int:
    if given[:1] in (["--help"], ["-h"], ["help"]):
        print(help_text())
        return 0
    if given == ["--version"]:
        from edgebed import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    verb = next((verb for verb in VERBS if given[:1] == [verb.name]), None)
    if verb is None:
        print(_unknown_verb(given), file=sys.stderr)
        return 2
    return _run_verb(verb, given[1:])


def help_text() -> str:
    """What ``edgebed --help`` prints."""
    width = max(len(verb.name) for verb in VERBS)
    return "\n".join(
        (
            f"Usage: {PROGRAM} VERB [ARGUMENTS]",
            "",
            "A testbed for computation offloading: real devices, real recognition, measured latency, CPU and energy.",
            "",
            "Verbs:",
            *(f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS),
            "",
            f"`{PROGRAM} VERB --help` explains a verb, with an example. `{PROGRAM} --version` names the version.",
        )
    )


def _unknown_verb(given: list[str]) -> str:
    if not given:
        return help_text()
    from difflib import get_close_matches

    names = [verb.name for verb in VERBS]
    near = get_close_matches(given[0], names, n=1)
    guess = f"; did you mean {near[0]}?" if near else "."
    return f"{PROGRAM}: there is no verb {given[0]!r}{guess} Verbs: {', '.join(names)}; see `{PROGRAM} --help`"


def _run_verb(verb: Verb, arguments: list[str]) -> int:
    from edgebed.errors import EXIT_INTERRUPTED, EdgebedError, MissingExtra

    try:
        status = _invoke(verb, arguments)
    except EdgebedError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _ORCHESTRATOR_PACKAGES:
            raise
        missing = MissingExtra("orchestrator", f"{PROGRAM} {verb.name}")
        print(missing, file=sys.stderr)
        return missing.exit_status
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    if status == EXIT_INTERRUPTED:  # raised, or turned into a status by typer or by the verb
        print("interrupted", file=sys.stderr)
    return status


def _invoke(verb: Verb, arguments: list[str]) -> int:
    import importlib

    import typer

    application = application_of(verb, importlib.import_module(verb.module))
    # typer exports the leaf of click's usage errors but not their base, and old and new versions keep it elsewhere.
    usage_error = typer.BadParameter.__mro__[1]
    assert issubclass(usage_error, Exception)
    try:
        status = typer.main.get_command(application).main(
            args=arguments, prog_name=f"{PROGRAM} {verb.name}", standalone_mode=False
        )
    except usage_error as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except typer.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def new_application() -> typer.Typer:
    """A typer application as all verbs are: plain help, plain tracebacks."""
    import typer

    return typer.Typer(
        add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def application_of(verb: Verb, module: ModuleType) -> typer.Typer:
    """A verb's module as a typer application, with its examples below its help."""
    examples = "\n".join(("\b", "Example:", *(f"  {line}" for line in module.EXAMPLES)))
    if hasattr(module, "app"):
        application: typer.Typer = module.app
        application.info.help = verb.summary
        application.info.epilog = examples
        return application
    application = new_application()
    application.command(name=verb.name, epilog=examples)(module.command)
    return application
