"""The variables of a host that are read from an inventory, their types, defaults and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from edgebed.metering.base import MeterDriver
from edgebed.metering.board import Board
from edgebed.metering.registry import AUTO
from orchestrator.documents import shown
from orchestrator.validation import Strict, unknown_key, unknown_name

DEFAULT_METER = "cpu_model"

Connection = Literal["local", "ssh"]
Service = Literal["auto", "system", "user", "none"]
ClockSource = Literal["measure", "chrony"]

# What Ansible calls its other ways to connect over SSH; to us they are all one.
_CONNECTIONS = {"smart": "ssh", "paramiko": "ssh", "paramiko_ssh": "ssh", "ansible.builtin.ssh": "ssh"}
# Variables that mean something to edgebed and are not fields of `HostVariables`.
_READ_ELSEWHERE = frozenset({"ansible_group_priority"})


@dataclass(frozen=True, slots=True)
class Known:
    """What a host may name; the context that `HostVariables` is validated in."""

    boards: Mapping[str, Board]
    drivers: Mapping[str, MeterDriver]


def _plain_text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"is {shown(text)}; expected printable text, not empty")
    if "{{" in text:
        raise ValueError(f"is the template {shown(text)}; templates are not evaluated, write the value")
    return text


def _address(text: str) -> str:
    # A leading dash would be taken for an option by the programs that are handed the address.
    if any(each.isspace() for each in text) or text.startswith("-"):
        raise ValueError(f"is {shown(text)}; expected a host name or an address")
    return text


def _own_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"is {shown(text)}; expected an IP address of the host, at which others reach it") from None


PlainText = Annotated[str, AfterValidator(_plain_text)]
Address = Annotated[PlainText, AfterValidator(_address)]
OwnAddress = Annotated[PlainText, AfterValidator(_own_address)]


class LinkSettings(Strict):
    """``edgebed_link``: how a device's uplink is paced."""

    rate_bps: float = Field(ge=0, le=1e12, description="bits a second; 0 = as fast as the network")


class MeterSettings(Strict):
    """``edgebed_meter``: a driver's name, or its name and settings; or two of these, the second to check the first."""

    name: PlainText = Field(description="a meter's name, see `edgebed list meters`")
    options: dict[str, str | int | float] = Field(default_factory=dict)


class HostVariables(Strict):
    """What is read of a host; ``docs/experiments.md`` says what each means."""

    ansible_connection: Connection = "ssh"
    ansible_host: Address | None = None
    ansible_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    ansible_user: Address | None = None
    ansible_ssh_private_key_file: PlainText | None = None
    edgebed_address: OwnAddress | None = None
    edgebed_board: PlainText | None = None
    edgebed_clock: ClockSource = "measure"
    edgebed_controller: bool = False
    edgebed_link: LinkSettings = LinkSettings(rate_bps=0)
    edgebed_meter: list[MeterSettings] = Field(
        default_factory=lambda: [MeterSettings(name=DEFAULT_METER)], min_length=1, max_length=2
    )
    edgebed_port: Annotated[int, Field(ge=0, le=65535)] = 0
    edgebed_position: list[float] = Field(default_factory=lambda: [0.0, 0.0], min_length=2, max_length=2)
    edgebed_python: PlainText | None = None
    edgebed_queue_tasks: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    edgebed_service: Service = "auto"
    edgebed_slowdown: Annotated[float, Field(ge=1, le=1000)] = 1.0
    edgebed_workers: Annotated[int, Field(ge=1, le=256)] = 1

    @field_validator("ansible_connection", mode="before")
    @classmethod
    def _connection(cls, value: Any) -> Any:
        return _CONNECTIONS.get(value, value) if isinstance(value, str) else value

    @field_validator("edgebed_meter", mode="before")
    @classmethod
    def _meter(cls, value: Any) -> Any:
        several = value if isinstance(value, list) else [value]
        return [{"name": each} if isinstance(each, str) else each for each in several]

    @field_validator("edgebed_board")
    @classmethod
    def _board_exists(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = info.context
        assert isinstance(known, Known)
        if value is not None and value not in known.boards:
            raise ValueError(unknown_name("board", value, known.boards))
        return value

    @field_validator("edgebed_meter")
    @classmethod
    def _meters_exist(cls, value: list[MeterSettings], info: ValidationInfo) -> list[MeterSettings]:
        known = info.context
        assert isinstance(known, Known)
        for each in value:
            _check_meter(each, known)
        if len(value) > 1 and value[0] == value[1]:
            raise ValueError(f"names {shown(value[0].name)} twice; the second meter is what the first is held against")
        return value


def _check_meter(meter: MeterSettings, known: Known) -> None:
    if meter.name != AUTO and meter.name not in known.drivers:
        raise ValueError(unknown_name("meter", meter.name, (AUTO, *known.drivers)))
    settings = () if meter.name == AUTO else tuple(known.drivers[meter.name].settings)
    wrong = [f"options: {each} {unknown_key(each, settings)}" for each in meter.options if each not in settings]
    if wrong:
        raise ValueError("; ".join(wrong))


def is_read(variable: str) -> bool:
    """Whether a variable is checked against `HostVariables`; all of edgebed's are, so that a typo is a problem."""
    return variable.startswith("edgebed_") or variable in HostVariables.model_fields


def is_ignored_ansible(variable: str) -> bool:
    """Whether it is a variable of Ansible's that edgebed does not use."""
    return variable.startswith("ansible_") and not is_read(variable) and variable not in _READ_ELSEWHERE
