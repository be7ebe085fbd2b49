"""``edgebed check --calibrate``: each board that has a meter beside it gets a power model of its own."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgebed.errors import EXIT_DONE, EXIT_FAILED, BadInput, EdgebedError, WorkFailed
from edgebed.metering.board import Board, board_from_dict
from edgebed.metering.calibrate import LOADS, Answer, Settings
from edgebed.metering.registry import AUTO, meter_drivers
from edgebed.replacing import replace_file
from orchestrator.cli.output import Output
from orchestrator.doctor.power_fit import PowerFit, calibrated_board, fit_power
from orchestrator.inventory import Host, Inventory
from orchestrator.provision import lease
from orchestrator.provision.installation import Installation, read_installation
from orchestrator.remote.base import Remote

MADE_BY = "# Made by `edgebed check --calibrate`; doing it again replaces it."
PURPOSE = "calibration"

START_S = 30.0
"""What a slow board needs to start the program."""

# What they see is not the board.
_PARTIAL = {"rapl": "sees processor and memory, not the whole host"}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A host and its own board file, or why there is none.

    Attributes:
        fit, file, board: None, and empty, when there is a problem.
    """

    host: str
    fit: PowerFit | None = None
    board: str = ""
    file: Path | None = None
    problem: str = ""

    def to_plain(self) -> dict[str, Any]:
        """For programs."""
        if self.fit is None:
            return {"problem": self.problem}
        fit = self.fit
        return {
            "problem": "",
            "board": self.board,
            "file": str(self.file),
            "idle_w": fit.idle_w,
            "max_w": fit.max_w,
            "error_fraction": fit.error_fraction,
            "marginal_error_fraction": fit.marginal_error_fraction,
            "meter": fit.meter_source,
            "windows": [
                {"utilisation": window.utilisation, "power_w": window.power_w, "residual_w": residual_w}
                for window, residual_w in zip(fit.windows, fit.residuals_w, strict=True)
            ],
        }


def calibrate_hosts(
    inventory: Inventory,
    hosts_file: Path,
    connect: Callable[[Host], Remote],
    output: Output,
    *,
    settle_s: float = 3.0,
    window_s: float = 6.0,
) -> int:
    """Calibrate every host that has a meter, all at once, and write their board files.

    Args:
        inventory: the hosts.
        hosts_file: its project's ``boards/`` gets the files.
        connect: makes the `Remote` of a host.
        output: is told.
        settle_s: how long each load is held before it is measured.
        window_s: how long it is measured.

    Returns:
        The exit status.

    Raises:
        BadInput: no host of the inventory has a meter that sees its whole board.
    """
    chosen = _with_meter(inventory, output)
    times = (settle_s, window_s)
    folder = hosts_file.resolve().parent.parent / "boards"

    def calibrate(host: Host) -> Calibrated:
        try:
            return _calibrate(host, inventory.boards[host.board], folder, connect, times)
        except EdgebedError as error:
            return Calibrated(host.name, problem=str(error))

    output.note(f"about {_seconds(times):.0f} s of load on: {_names(chosen)}")
    with ThreadPoolExecutor(len(chosen), "calibrate") as pool:
        found = list(pool.map(calibrate, chosen))
    for each in found:
        output.text(_text(each, hosts_file))
    output.answer({"hosts": {each.host: each.to_plain() for each in found}})
    return EXIT_FAILED if any(each.problem for each in found) else EXIT_DONE


def _names(hosts: list[Host]) -> str:
    return ", ".join(host.name for host in hosts)


def _with_meter(inventory: Inventory, output: Output) -> list[Host]:
    drivers = meter_drivers()
    chosen: list[Host] = []
    for host in inventory.hosts:
        driver = drivers.get(host.meter)
        if host.meter in _PARTIAL:
            output.note(f"{host.name}: left out, {host.meter} {_PARTIAL[host.meter]}")
        elif host.meter != AUTO and (driver is None or not driver.measures):
            output.note(f"{host.name}: left out, {host.meter} is itself a model")
        elif host.connection == "local" and any(each.connection == "local" for each in chosen):
            output.note(f"{host.name}: left out, it is the same machine as another host")
        else:
            chosen.append(host)
    if not chosen:
        raise BadInput(
            f"{inventory.file}: no host has a meter that sees its board; name one, as in "
            "`edgebed_meter: hwmon_ina2xx` (`edgebed list meters`)"
        )
    return chosen


def _calibrate(
    host: Host, board: Board, folder: Path, connect: Callable[[Host], Remote], times: tuple[float, float]
) -> Calibrated:
    name = board.name if board.name.endswith(f"-{host.name}") else f"{board.name}-{host.name}"
    file = folder / f"{name}.yaml"
    _check_replaceable(file)
    settings = Settings(
        board=asdict(board),
        meter=host.meter,
        meter_options=dict(host.meter_options),
        settle_s=times[0],
        window_s=times[1],
    )
    remote = connect(host)
    remote.connect()
    try:
        installed = read_installation(remote, host)
        with _held(remote, installed):
            answer = _measure(remote, installed, settings)
    finally:
        remote.close()
    if answer.problem:
        raise WorkFailed(f"{host.name}: {answer.problem}")
    if not answer.source.startswith("measured:"):
        raise WorkFailed(f"{host.name}: {answer.source} is itself a model; a sensor is needed")
    try:
        fit = fit_power(answer.windows, answer.source)
    except WorkFailed as error:
        raise WorkFailed(f"{host.name}: {error}") from None
    when = datetime.now(UTC).date().isoformat()
    write_board(file, calibrated_board(board, name, host.name, fit, when), fit)
    return Calibrated(host.name, fit, name, file)


@contextmanager
def _held(remote: Remote, installed: Installation) -> Iterator[None]:
    """Nobody else works on the host meanwhile; this machine itself has no lease."""
    if not installed.root:
        yield
        return
    holder = lease.own_holder(PURPOSE)
    lease.take(remote, installed.root, holder)
    try:
        yield
    finally:
        with suppress(EdgebedError):
            lease.drop(remote, installed.root, holder)


def _seconds(times: tuple[float, float]) -> float:
    return len(LOADS) * sum(times)


def _measure(remote: Remote, installed: Installation, settings: Settings) -> Answer:
    command = f"{shlex.quote(installed.python)} -m edgebed.metering.calibrate"
    timeout_s = math.ceil(1.5 * _seconds((settings.settle_s, settings.window_s)) + START_S)
    done = remote.execute(command, timeout_s=timeout_s, stdin=msgspec.json.encode(settings))
    text = done.checked("the calibration ended early").text.rpartition("\n")[2]
    try:
        return msgspec.json.decode(text, type=Answer)
    except msgspec.MsgspecError as error:
        raise WorkFailed(f"{remote.host}: the calibration's answer makes no sense: {error}") from None


def _check_replaceable(file: Path) -> None:
    with suppress(FileNotFoundError):
        if not file.read_text(encoding="utf-8").startswith(MADE_BY):
            raise BadInput(f"{file}: was not made by a calibration and is not replaced; rename it")


def write_board(file: Path, board: Board, fit: PowerFit) -> None:
    """Write a board file, with what the fit left over as a table of comments; all of it or nothing."""
    rows = [
        f"#   {100 * window.utilisation:5.1f} %  {window.power_w:8.3f} W  {fit.power_w(window.utilisation):8.3f} W"
        f"  {residual_w:+.3f} W"
        for window, residual_w in zip(fit.windows, fit.residuals_w, strict=True)
    ]
    plain = asdict(board)
    board_from_dict(plain)
    text = "\n".join(
        (
            MADE_BY,
            "# busy, measured, fitted, residual:",
            *rows,
            yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110),
        )
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, text.encode())


def _text(found: Calibrated, hosts_file: Path) -> str:
    if found.fit is None:
        return f"{found.host}: failed: {found.problem}"
    fit = found.fit
    errors = f"{100 * fit.error_fraction:.1f} % ({100 * fit.marginal_error_fraction:.1f} % of what work adds)"
    return (
        f"{found.host}: {fit.idle_w:.3f} W idle, {fit.max_w:.3f} W busy, "
        f"largest residual {fit.worst_residual_w:.3f} W, stated error {errors}\n"
        f"  written to {found.file}; use it by `edgebed_board: {found.board}` for {found.host} in {hosts_file}"
    )
