"""Ctrl-C as something to look at; and one worker at a time on a run."""

from __future__ import annotations

import select
import signal
from pathlib import Path

import pytest

from edgebed.errors import BadInput, RunConflict
from orchestrator.interrupts import Interrupts
from orchestrator.run_folder import exclusive


def is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_signals_are_counted_and_wake_whoever_waits() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    with interrupts.listening():
        assert not is_readable(interrupts.read_fd)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 2
        assert is_readable(interrupts.read_fd)
        interrupts.drain()
        assert not is_readable(interrupts.read_fd)
    assert signal.getsignal(signal.SIGINT) is before
    interrupts.close()


def test_one_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        with pytest.raises(RunConflict, match="another edgebed is working on this run"), exclusive(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == [], "nothing is left in the folder"
    with exclusive(tmp_path):
        pass


def test_only_a_folder_can_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not the folder of a run"), exclusive(tmp_path / "missing"):
        pass
