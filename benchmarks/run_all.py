"""Every benchmark, one after another, and a table of what came out: ``make bench``.

    python -m benchmarks.run_all [-o FOLDER]

With ``-o`` the answers are kept, as JSON and as a page. Exit status 1 when one is beyond its limits, or inconclusive.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import VERDICTS

BENCHMARKS = (
    "offload_overhead",
    "server_saturation",
    "many_clients",
    "agent_footprint",
    "metering_cost",
    "startup",
    "ssh_exec",
    "decision_speed",
    "scenario_speed",
)
ROOT = Path(__file__).parents[1]


def run(name: str) -> dict[str, Any] | None:
    """One benchmark's answer; None when it gave none."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    answer = json.loads(lines[-1]) if lines else None
    return answer if isinstance(answer, dict) else None


def shown(value: Any) -> str:
    """A number as people read it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "[" + ", ".join(shown(one) for one in value) + "]" if isinstance(value, list) else str(value)


def page(answers: list[dict[str, Any]]) -> str:
    """The answers as a page of the docs."""
    first = answers[0]
    lines = [
        "# What the benchmarks gave",
        "",
        "Written by `make bench`; `docs/benchmarks.md` explains the figures.",
        "",
        f"{first['machine']}; Python {first['python']}.",
    ]
    for answer in answers:
        lines += [
            "",
            f"## {answer['benchmark']}: {VERDICTS[answer['within_limit']]}",
            "",
            "| figure | value |",
            "|---|---|",
        ]
        skipped = ("benchmark", "within_limit", "machine", "python")
        lines += [f"| `{key}` | {shown(value)} |" for key, value in answer.items() if key not in skipped]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(description="Every benchmark")
    parser.add_argument("-o", "--output", type=Path, help="keep the answers in this folder")
    options = parser.parse_args()
    answers, status = [], 0
    for name in BENCHMARKS:
        answer = run(name)
        verdict = "FAILED" if answer is None else VERDICTS[answer["within_limit"]]
        print(f"{name}: {verdict}", flush=True)
        if answer is None or not answer["within_limit"]:
            status = 1
        for key, value in (answer or {}).items():
            if key not in ("benchmark", "within_limit"):
                print(f"  {key:26} {shown(value)}", flush=True)
        if answer is not None:
            answers.append(answer)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "benchmarks.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
        (options.output / "benchmarks.md").write_text(page(answers))
    return status


if __name__ == "__main__":
    sys.exit(main())
