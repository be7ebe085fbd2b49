"""A policy in a program of its own: it decides for an experiment with ``placement: external`` while that runs.

    edgebed run my-experiment.yaml                              # waits for a decider
    python examples/external_decider.py runs/my-experiment/latest

Replace `Balance` by anything that turns an observation into a decision: a learner that is trained as it goes, say.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgebed.errors import EdgebedError
from edgebed.types import Decision, Float32Array, Observation, ObservationSpec
from orchestrator.decider import Question, decider_of


class Balance:
    """Offloads as many of the devices' loads as keep the first edge server no longer busy than the devices are."""

    version = "balance-1"

    def decide(self, spec: ObservationSpec, seen: Observation) -> Decision:
        """The largest loads go first; action 0 is the device, 1 the first channel of the first server."""
        cycles = seen.values[:, spec.device_index("waiting_cycles")]
        own_s = seen.values[:, spec.device_index("device_queue_delay_s")] + self._seconds(spec, seen, cycles)
        server_s = float(seen.server[spec.server_index("queue_delay_s")])
        speed_hz = float(seen.server[spec.server_index("worker_speed_hz")]) or 1e9
        actions = np.zeros(len(spec.slots), np.int32)
        for slot in np.argsort(-cycles):
            is_allowed = bool(seen.present[slot] and seen.allowed_actions[slot, 1])
            if is_allowed and server_s + cycles[slot] / speed_hz <= own_s[slot]:
                actions[slot] = 1
                server_s += cycles[slot] / speed_hz
        return Decision.from_actions(actions, spec)

    @staticmethod
    def _seconds(spec: ObservationSpec, seen: Observation, cycles: Float32Array) -> Float32Array:
        speed_hz = np.maximum(seen.values[:, spec.device_index("device_speed_hz")], 1.0)
        return (cycles / speed_hz).astype(np.float32)


def describe(question: Question, offloaded: int) -> str:
    """A line about a decision, or about the end of a cell."""
    where = f"{question.cell.cell_id} epoch {question.observation.epoch}"
    if question.is_last:
        return f"{where}: the end, {int(question.observation.present.sum())} devices present"
    return f"{where}: {offloaded} of {len(question.spec.slots)} devices offload"


def main(run: Path) -> int:
    policy = Balance()
    answered = 0
    with decider_of(run) as decider:
        for question in decider:
            offloaded = 0
            if not question.is_last:
                decision = policy.decide(question.spec, question.observation)
                answered += decider.answer(question, decision, policy.version)
                offloaded = int((decision.site > 0).sum())
            print(describe(question, offloaded), flush=True)
    print(f"{answered} decisions")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} RUN, for example runs/my-experiment/latest")
    try:
        sys.exit(main(Path(sys.argv[1])))
    except EdgebedError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
