"""Which meters there are: every file of `edgebed.metering.drivers`, and what other packages add.

A package outside adds a driver by an entry point of the group ``edgebed.meters`` that names a `MeterDriver`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace

from edgebed import entry_points
from edgebed.errors import BadInput
from edgebed.metering import drivers
from edgebed.metering.base import Meter, MeterDriver, MeterSetup, Setting
from edgebed.metering.cross_check import CheckedMeter

ENTRY_POINT_GROUP = "edgebed.meters"
AUTO = "auto"


def meter_drivers() -> dict[str, MeterDriver]:
    """All drivers by name, sensors first, by rank, then in the names' order.

    Raises:
        BadInput: an entry point does not name a driver, or two drivers have the same name.
    """
    found: dict[str, MeterDriver] = {}
    for module in pkgutil.iter_modules(drivers.__path__):
        _add(found, importlib.import_module(f"{drivers.__name__}.{module.name}").DRIVER, module.name)
    for entry in entry_points.points_of(ENTRY_POINT_GROUP):
        try:
            driver = entry.load()
        except Exception as error:  # whatever another package's import raises, the message names that package
            raise BadInput(f"the meter {entry.name} ({entry.value}) cannot be loaded: {error}") from error
        _add(found, driver, f"{entry.name} ({entry.value})")
    return dict(sorted(found.items(), key=lambda item: (not item[1].measures, item[1].rank, item[0])))


def _add(found: dict[str, MeterDriver], driver: object, origin: str) -> None:
    if not isinstance(driver, MeterDriver):
        raise BadInput(f"{origin} is not a meter driver but {driver!r}; name a MeterDriver")
    if driver.name in found or driver.name == AUTO:
        raise BadInput(f"{origin}: the meter name {driver.name!r} is taken; choose another")
    found[driver.name] = driver


def open_checked_meter(name: str, setup: MeterSetup, other: str, other_settings: Mapping[str, Setting]) -> Meter:
    """Open a meter, and a second one that it is held against.

    Args:
        name: as for `open_meter`.
        setup: as for `open_meter`.
        other: name of the second meter; empty: there is none.
        other_settings: its settings.

    Raises:
        BadInput, WorkFailed: as for `open_meter`, of either; or both are the same.
    """
    used = open_meter(name, setup)
    if not other:
        return used
    second = open_meter(other, replace(setup, settings=other_settings))
    if second.source == used.source and setup.settings == other_settings:
        raise BadInput(f"the meters {name} and {other} are the same ({used.source}); name another one, or only one")
    return CheckedMeter(used, second)


def open_meter(name: str, setup: MeterSetup) -> Meter:
    """Open a meter by its driver's name.

    Args:
        name: a driver's name, or ``auto``: the first sensor that is present, else the board's CPU model.
        setup: what the driver needs; its settings must be the driver's own.

    Raises:
        BadInput: no such driver, a setting that it does not have, or a sensor that is not there.
        WorkFailed: the sensor is there and cannot be read.
    """
    known = meter_drivers()
    if name == AUTO:
        driver = next((each for each in known.values() if each.is_present(setup)), known["cpu_model"])
        # Settings belong to one driver; which one `auto` takes is not known when they are written.
        setup = replace(setup, settings={})
        return driver.open_meter(setup)
    if name not in known:
        raise BadInput(f"there is no meter {name!r}; allowed: {', '.join((AUTO, *known))}")
    unknown = sorted(set(setup.settings) - set(known[name].settings))
    if unknown:
        allowed = ", ".join(known[name].settings) or "none"
        raise BadInput(f"meter {name}: unknown settings {', '.join(unknown)}; allowed: {allowed}")
    return known[name].open_meter(setup)
