"""The firmware's answers, as real boards print them, and a scripted ``vcgencmd`` that is really started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebed.clock import ManualClock
from edgebed.metering.polled_program import PolledProgram
from edgebed.metering.vcgencmd import (
    GET_THROTTLED,
    MEASURE_CLOCK,
    FirmwarePoll,
    ask,
    find_program,
    parse_clock_hz,
    parse_rails,
    parse_throttled,
)

# `vcgencmd pmic_read_adc` of a Raspberry Pi 5, idle.
PMIC = """\
     3V7_WL_SW_A current(0)=0.07514142A
       3V3_SYS_A current(1)=0.06343886A
       1V8_SYS_A current(2)=0.17273340A
      DDR_VDD2_A current(3)=0.01756755A
      DDR_VDDQ_A current(4)=0.00000000A
       1V1_SYS_A current(5)=0.18348330A
        0V8_SW_A current(6)=0.33569700A
      VDD_CORE_A current(7)=0.82620000A
     3V3_DAC_A current(17)=0.00000000A
     3V3_ADC_A current(18)=0.00030525A
     0V8_AON_A current(16)=0.00372405A
        HDMI_A current(22)=0.01269840A
     3V7_WL_SW_V volt(8)=3.71171580V
       3V3_SYS_V volt(9)=3.31428440V
       1V8_SYS_V volt(10)=1.79853200V
      DDR_VDD2_V volt(11)=1.11062440V
      DDR_VDDQ_V volt(12)=0.60402420V
       1V1_SYS_V volt(13)=1.10439740V
        0V8_SW_V volt(14)=0.80152700V
      VDD_CORE_V volt(15)=0.72084890V
     3V3_DAC_V volt(20)=3.30616940V
     3V3_ADC_V volt(21)=3.30433790V
     0V8_AON_V volt(19)=0.79670340V
        HDMI_V volt(23)=5.09790000V
       EXT5V_V volt(24)=5.09202000V
        BATT_V volt(25)=0.00000000V
"""

Script = Callable[[str], Path]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a ``vcgencmd`` of so much shell on PATH."""

    def make(body: str) -> Path:
        program = tmp_path / "vcgencmd"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return program

    return make


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("throttled=0x0", 0),
        ("throttled=0x50005\n", 0x50005),
        ("throttled=0xE0008", 0xE0008),
        ("", None),
        ("throttled=", None),
        ("VCHI initialization failed", None),
        ('error=1 error_msg="Command not registered"', None),
        ("throttled=0x1ffffffff", None),
    ],
)
def test_throttle_word(text: str, word: int | None) -> None:
    assert parse_throttled(text) == word


@pytest.mark.parametrize(
    ("text", "hz"),
    [
        ("frequency(48)=1500345728", 1500345728.0),
        ("frequency(0)=2400033792\n", 2400033792.0),
        ("frequency(48)=0", None),
        ("frequency=1", None),
        ("", None),
    ],
)
def test_measured_clock(text: str, hz: float | None) -> None:
    assert parse_clock_hz(text) == hz


def test_twelve_rails_have_a_power_and_the_input_has_none() -> None:
    rails = parse_rails(PMIC)
    assert len(rails) == 12
    assert rails["VDD_CORE"] == pytest.approx(0.8262 * 0.7208489)
    assert rails["HDMI"] == pytest.approx(0.0126984 * 5.0979)
    assert not {"EXT5V", "BATT"} & set(rails)
    assert sum(rails.values()) == pytest.approx(1.955, abs=0.001)


@pytest.mark.parametrize("text", ["", "error=2", "VDD_CORE_A current(7)=0.8V\n VDD_CORE_V volt(15)=0.7V", "A_A x=1A"])
def test_no_rails_in_what_is_no_answer(text: str) -> None:
    assert parse_rails(text) == {}


def test_a_host_without_the_program_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() is None
    assert ask(str(tmp_path / "vcgencmd"), GET_THROTTLED) is None


def test_the_program_is_asked_with_its_arguments(script: Script) -> None:
    program = script('echo "asked: $*"')
    assert find_program() == str(program)
    assert ask(str(program), MEASURE_CLOCK) == "asked: measure_clock arm"
    script("echo broken; exit 1")
    assert ask(str(program), MEASURE_CLOCK) is None


def until(reached: Callable[[], bool], poll: Callable[[], None]) -> None:
    """Poll until something is so; the program is a real one and takes the time that it takes."""
    end_s = time.monotonic() + 10.0
    while not reached():
        assert time.monotonic() < end_s, "nothing came of it in 10 s"
        time.sleep(0.002)
        poll()


def test_two_questions_share_one_process_a_second(script: Script, tmp_path: Path) -> None:
    program = script(
        f'echo "$1" >> {tmp_path}/asked; '
        'case $1 in get_throttled) echo throttled=0x4;; *) echo "frequency(48)=600000000";; esac'
    )
    clock = ManualClock(100.0)
    poll = FirmwarePoll(clock, str(program), [GET_THROTTLED, MEASURE_CLOCK])
    asked = tmp_path / "asked"
    for second, question in enumerate((GET_THROTTLED, MEASURE_CLOCK, GET_THROTTLED)):
        clock.time_s = 100.0 + second
        for _ in range(3):
            poll.poll()
        until(lambda: asked.exists() and len(asked.read_text().split()) == second + 1, poll.poll)  # noqa: B023
        until(lambda: poll.answer(question) is not None, poll.poll)  # noqa: B023
    poll.close()
    assert asked.read_text().split() == ["get_throttled", "measure_clock", "get_throttled"]
    assert poll.answer(GET_THROTTLED) == "throttled=0x4"
    assert poll.answer(MEASURE_CLOCK) == "frequency(48)=600000000"


def test_a_program_that_hangs_is_never_waited_for_and_killed_when_it_is_due_again(tmp_path: Path) -> None:
    clock = ManualClock()
    hangs = PolledProgram(clock, ("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"), 1.0)
    begin_s = time.monotonic()
    hangs.poll()
    until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), hangs.poll)
    first = int((tmp_path / "pid").read_text())
    clock.advance(1.0)
    hangs.poll()
    assert hangs.answer is None
    assert not Path(f"/proc/{first}").exists()
    hangs.close()
    assert time.monotonic() - begin_s < 300, "it would have slept for 600 s"


def test_an_answer_is_forgotten_when_the_next_try_fails(tmp_path: Path) -> None:
    clock = ManualClock()
    flag = tmp_path / "well"
    flag.touch()
    program = PolledProgram(clock, ("/bin/sh", "-c", f"test -e {flag} && echo fine"), 1.0)
    program.poll()
    until(lambda: program.answer == "fine", program.poll)
    flag.unlink()
    clock.advance(1.0)
    program.poll()
    until(lambda: program.answer is None, program.poll)
    program.close()


def test_a_grandchild_that_keeps_the_pipe_open_holds_nobody_up(tmp_path: Path) -> None:
    clock = ManualClock()
    program = PolledProgram(clock, ("/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; echo here"), 1.0)
    program.poll()
    until(lambda: program.answer == "here", program.poll)
    import os
    import signal

    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    program.close()
