"""Boards: what a file may say, and that all its problems are reported at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from edgebed.errors import BadInput
from edgebed.metering.board import board_from_dict, load_board, load_boards

FOLDER = Path(__file__).parents[2] / "inventory" / "boards"

GOOD: dict[str, object] = {
    "name": "bench",
    "title": "A board on a bench",
    "cores": 4,
    "nominal_hz": 1_500_000_000,
    "idle_w": 2.0,
    "max_w": 6.0,
    "error_fraction": 0.1,
    "marginal_error_fraction": 0.2,
    "error_source": "a test",
    "power_kind": "measured",
    "power_source": "a test",
    "transmit_w": 1.0,
    "transmit_error_fraction": 0.5,
    "transmit_source": "a test",
    "relative_speed_ratio": None,
    "relative_speed_source": "unknown",
}


def test_power_is_linear_in_utilisation() -> None:
    board = board_from_dict(GOOD)
    assert [board.power_w(u) for u in (0.0, 0.25, 1.0)] == [2.0, 3.0, 6.0]
    assert board.span_w == 4.0
    assert board.cycles_per_s == 6e9
    assert board.energy_source == "estimated:cpu-model/bench"


def test_board_survives_a_plan() -> None:
    board = board_from_dict(GOOD)
    assert board_from_dict(asdict(board)) == board


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cores", 0, "above 0"),
        ("cores", 2.5, "whole number"),
        ("cores", True, "whole number"),
        ("nominal_hz", "1.5e9", "is not a number"),
        ("nominal_hz", 1500, "out of range"),
        ("idle_w", -1.0, "out of range"),
        ("max_w", float("inf"), "out of range"),
        ("max_w", float("nan"), "out of range"),
        ("max_w", 1.0, "below idle_w"),
        ("error_fraction", 0, "no model is exact"),
        ("error_fraction", 1.2, "no model is exact"),
        ("marginal_error_fraction", 2, "no model is exact"),
        ("transmit_w", -0.1, "from 0"),
        ("transmit_error_fraction", None, "is not a number"),
        ("relative_speed_ratio", 0, "or null when unknown"),
        ("power_kind", "guessed", "measured, published, assumed"),
        ("power_source", "  ", "is not a text"),
        ("name", "a/b", "may only have letters"),
    ],
)
def test_bad_value_is_named_with_what_is_allowed(key: str, value: object, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        board_from_dict({**GOOD, key: value})
    (problem,) = caught.value.problems
    assert problem.key == key
    assert said in problem.message


def test_zero_transmit_power_is_allowed_for_a_board_without_a_radio() -> None:
    assert board_from_dict({**GOOD, "transmit_w": 0}).transmit_w == 0


def test_all_problems_of_a_file_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text("name: bench\ncores: none\nidle_watts: 2\nmax_w: -1\n")
    with pytest.raises(BadInput) as caught:
        load_board(path)
    found = {problem.key: problem for problem in caught.value.problems}
    assert found["cores"].line == 2
    assert "did you mean idle_w?" in found["idle_watts"].message
    assert found["max_w"].line == 4
    assert found["title"].message == "is missing"
    assert set(found) == {"idle_watts", "cores", "max_w", *GOOD} - {"name"}
    assert all(problem.file == str(path) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not YAML"),
        ("- a\n- b\n", "is not a mapping"),
        ("", "is not a mapping"),
        ("name: a\nname: b\n", "is here twice, first in line 1"),
    ],
)
def test_file_that_is_no_board(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        load_board(path)


def test_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_board(tmp_path / "nowhere.yaml")


def test_board_must_have_its_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((FOLDER / "raspberry-pi-4b.yaml").read_text())
    with pytest.raises(BadInput, match="rename one of them"):
        load_board(path)


def test_folder_reports_the_problems_of_all_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("[]")
    with pytest.raises(BadInput) as caught:
        load_boards(tmp_path)
    assert [Path(problem.file).stem for problem in caught.value.problems] == ["a", "b"]
    with pytest.raises(BadInput, match="no board here"):
        load_boards(tmp_path / "empty")


# The published fits that the shipped boards are to repeat: idle and slope in W, see docs/energy.md.
PUBLISHED_W = {
    "raspberry-pi-zero-w": (0.92, 0.47),
    "raspberry-pi-3b": (1.08, 3.48),
    "raspberry-pi-3b-plus": (2.00, 3.30),
    "raspberry-pi-4b": (2.29, 4.53),
    "raspberry-pi-400": (1.82, 5.03),
    "raspberry-pi-5": (4.40, 3.46),
}


def test_shipped_boards_repeat_the_published_fits() -> None:
    boards = load_boards(FOLDER)
    assert set(boards) == {*PUBLISHED_W, "generic-x86"}
    for name, (idle_w, slope_w) in PUBLISHED_W.items():
        assert boards[name].idle_w == idle_w
        assert boards[name].span_w == pytest.approx(slope_w)
        assert boards[name].power_kind == "published"
        assert boards[name].transmit_source.startswith("assumed")


def test_the_pc_nobody_measured_says_so() -> None:
    board = load_board(FOLDER / "generic-x86.yaml")
    assert board.power_kind == "assumed"
    assert board.power_source.startswith("assumed")
    assert board.error_fraction >= 0.5
    assert board.relative_speed_ratio is None
