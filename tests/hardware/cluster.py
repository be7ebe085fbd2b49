"""Check a real cluster from end to end: ``python -m tests.hardware.cluster HOSTS -o FILE``.

Runs the real commands (check, deploy, deploy once more, run), holds the run against what it must show, and writes one
JSON file that may be shared: what was found and measured, without names, addresses, users, keys or paths. Hosts stay
deployed. Exit status: 0 all is as it should be, 1 something is not, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from edgebed.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, BadInput, EdgebedError
from edgebed.trace.manifest import read_manifest
from orchestrator.inventory import Inventory, load_inventory
from orchestrator.lab.hosts_file import written_by
from orchestrator.provenance import software
from tests.hardware.commands import Answer, edgebed
from tests.hardware.redaction import FACTS, Redactor, redactor_for, shared_finding
from tests.hardware.tables import print_result
from tests.hardware.verification import policies_of, verify, verify_faults

EXPERIMENT = Path("inventory/experiments/demo.yaml")
SCHEMA_VERSION = 1
EPOCH_S = 0.5  # of the demo
FAULT_POLICIES = ("all_local", "greedy_latency")
FAULT_EPOCHS = 40
"""At least, with faults: a small board takes seconds to start a program again, and is to work after that."""


@dataclass(slots=True)
class Check:
    """A check of one cluster, and what it has found so far.

    Attributes:
        inventory, hosts_file: the cluster.
        runs: the folder for the runs.
        epochs: of the run; a cell of the demo has half a second for each.
        accept_new: pin the keys of hosts never seen before.
        problems: what is not as it should be.
        result: what will be shared, not yet redacted.
    """

    inventory: Inventory
    hosts_file: Path
    runs: Path
    epochs: int
    accept_new: bool
    problems: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Say what is checked, and with what."""
        used = software()
        self.result |= {
            "schema_version": SCHEMA_VERSION,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "cluster": "virtual (edgebed lab)" if written_by(self.hosts_file) else "as the hosts file says",
            "edgebed": used.edgebed,
            "python": used.python,
            "commit": used.git_commit[:12],
            "commit_has_changes": used.git_dirty,
            "packages": used.packages,
            "seconds": {},
            "hosts": {host.name: self._host(host.name) for host in self.inventory.hosts},
        }

    def _host(self, name: str) -> dict[str, Any]:
        host = self.inventory.host(name)
        meters = [each for each in (host.meter, host.second_meter) if each]
        return {"role": host.role, "connection": host.connection, "board": host.board, "meters": meters} | (
            {"slowdown": host.slowdown} if host.slowdown > 1 else {}
        )

    def run(self, with_faults: bool) -> None:
        """All steps in order; what a later one needs and an earlier one did not bring ends it."""
        if self._examine() and self._deploy():
            self._measure()
            if with_faults:
                self._break()

    def _ask(self, step: str, *arguments: str) -> Answer:
        answer = edgebed(*arguments)
        self.result["seconds"][step] = round(answer.seconds, 2)
        return answer

    def _pinning(self) -> tuple[str, ...]:
        return ("--accept-new",) if self.accept_new else ()

    def _examine(self) -> bool:
        answer = self._ask("check", "check", str(self.hosts_file), *self._pinning())
        hosts = answer.json.get("hosts", {})
        for name, findings in hosts.items():
            self.result["hosts"][name]["findings"] = [shared_finding(each) for each in findings]
            failed = [each["check"] for each in findings if each["status"] == "fail"]
            self.problems += [f"{name}: the check '{each}' failed" for each in failed]
        if not hosts:
            self.problems.append("`edgebed check` ended without an answer")
        return answer.status == EXIT_DONE

    def _deploy(self) -> bool:
        """Twice: the first time whatever is needed, the second time nothing."""
        for step, allowed in (("deploy", ("changed", "unchanged", "local")), ("deploy_again", ("unchanged", "local"))):
            answer = self._ask(step, "deploy", str(self.hosts_file), *self._pinning())
            hosts = answer.json.get("hosts", {})
            for name, report in hosts.items():
                told = {"state": report["state"], "seconds": round(report["seconds"], 2)}
                self.result["hosts"][name][step] = told
                if report["state"] not in allowed:
                    self.problems.append(f"{name}: {step.replace('_', ' ')}: {report['state']}")
            if answer.status != EXIT_DONE or not hosts:
                self.problems.append(f"{step.replace('_', ' ')} ended with status {answer.status}")
                return False
        return True

    def _run(self, step: str, name: str, *settings: str) -> Path | None:
        changes = [f"name={name}", "seeds=[1]", *settings]
        options = [word for change in changes for word in ("--set", change)]
        where = ("--hosts", str(self.hosts_file), "--runs", str(self.runs))
        answer = self._ask(step, "run", str(EXPERIMENT), *where, *options)
        told = ("state", "verdict", "reasons", "planned", "done", "failed", "unknown", "cells")
        self.result[step] = {key: answer.json[key] for key in told if key in answer.json}
        if answer.status != EXIT_DONE:
            self.problems.append(f"the {step.replace('_', ' ')} ended with status {answer.status}")
        folder = Path(answer.json["run"]) if "run" in answer.json else None
        return folder if folder is not None and (folder / "tasks.parquet").is_file() else None

    def _measure(self) -> None:
        folder = self._run("run", "cluster-check", f"epochs={self.epochs}")
        if folder is None:
            return
        self.problems += verify(folder)
        manifest = read_manifest(folder)
        for name, said in manifest.hosts.items():
            self.result["hosts"][name] |= {key: said[key] for key in FACTS if key in said}
        for name, clock in manifest.clocks.items():
            told = {"offset_s": clock.offset_s, "error_s": clock.error_s}
            self.result["hosts"][name]["run_clock"] = told
        self.result["run"]["policies"] = policies_of(folder)

    def _break(self) -> None:
        """The programs of two devices die and stand still; with one device, one after the other."""
        killed, stopped = self.inventory.devices[0].name, self.inventory.devices[-1].name
        epochs = max(self.epochs, FAULT_EPOCHS)
        half_s = epochs * EPOCH_S / 2
        faults = (
            f"faults=[{{kind: kill, host: {killed}, at_s: {half_s / 2:g}}},"
            f" {{kind: stop, host: {stopped}, at_s: {half_s:g}, for_s: {half_s / 2:g}}}]"
        )
        policies = f"policies=[{', '.join(FAULT_POLICIES)}]"
        folder = self._run("run_with_faults", "cluster-check-faults", f"epochs={epochs}", policies, faults)
        if folder is not None:
            self.problems += verify_faults(folder, killed, len(FAULT_POLICIES))

    def finished(self, redactor: Redactor) -> dict[str, Any]:
        """The result, redacted, with what is not as it should be."""
        ending = {"problems": self.problems, "passed": not self.problems}
        return dict(redactor.clean(_finite(self.result | ending)))


def _finite(value: Any) -> Any:
    """What JSON has no number for is unknown; digits beyond any meaning are dropped."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def main(arguments: list[str] | None = None) -> int:
    """Check the cluster of a hosts file; returns the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        check = _check_of(options)
        return _checked(check, redactor_for(check.inventory), options)
    except KeyboardInterrupt:
        print("interrupted; what was begun is collected, and no result is written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except EdgebedError as error:
        print(error, file=sys.stderr)
        return error.exit_status


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hardware.cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("hosts", type=Path, help="the hosts' YAML file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder for the runs")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of half a second for each policy")
    parser.add_argument("--with-faults", action="store_true", help="and a run in which programs die and stand still")
    parser.add_argument("--accept-new", action="store_true", help="pin the keys of hosts never seen before")
    return parser


def _check_of(options: argparse.Namespace) -> Check:
    if not EXPERIMENT.is_file():
        raise BadInput(f"{EXPERIMENT} is not here; start this in edgebed's own folder")
    if options.epochs < 4:
        raise BadInput(f"--epochs is {options.epochs}; at least 4 are needed")
    if not options.output.parent.is_dir():
        raise BadInput(f"{options.output}: its folder is not there; make it, or choose another with -o")
    return Check(load_inventory(options.hosts), options.hosts, options.runs, options.epochs, options.accept_new)


def _checked(check: Check, redactor: Redactor, options: argparse.Namespace) -> int:
    check.begin()
    try:
        check.run(options.with_faults)
    except BadInput as error:
        check.problems.append(str(error))
        print(f"\nFAILED: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    result = check.finished(redactor)
    _write(options.output, result)
    print_result(result)
    for problem in check.problems:
        print(f"FAILED: {problem}")
    print(f"{'failed' if check.problems else 'passed'}; written to {options.output}, without names and addresses")
    print(f"the hosts stay deployed; to undo that: edgebed clean {options.hosts}")
    return EXIT_FAILED if check.problems else EXIT_DONE


def _write(path: Path, result: dict[str, Any]) -> None:
    """All of the file or nothing."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
