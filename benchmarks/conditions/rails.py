"""Which of its power a machine tells: the rails, how each is read, and which of them add up.

- Jetson: INA3221 monitors, in millivolts and milliamperes (hwmon since JetPack 5, iio before it),
  and a Thor's INA238, in microwatts.
- Any other hwmon chip that tells a power, in microwatts.
- Intel and AMD processors: RAPL under /sys/class/powercap, a counter of microjoules that starts
  again at `max_energy_range_uj`. Only root may read it (CVE-2020-8694).
- NVIDIA cards: NVML's counter of millijoules (Volta and newer), else its watts.

Sources: the kernel's documentation of ina3221, hwmon's sysfs interface and powercap; NVML's
reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import UserError
from runtime.jetson import INPUT_RAILS, RAILS_BEHIND_ANOTHER
from runtime.machine import read_number, read_text
from runtime.nvml import NvmlGpu

WATTS = "watts"
JOULES = "joules"

_MONITORS = ("ina3221", "ina3221x")
_RAPL_MS = 1.0
"""Intel SDM, volume 3, RAPL interfaces: the counter is renewed about each millisecond."""
_NVML_COUNTER_MS = 100.0
_NVML_WATTS_MS = 1000.0
"""NVML's reference: watts of Ampere (but GA100) and newer are the mean of a second. How often the
counter is renewed is not documented; steps of 20 to 100 ms are reported."""
_JETSON_PLACES = ("sys/devices/platform/gpu.0", "sys/devices/gpu.0", "etc/nv_tegra_release")


@dataclass(frozen=True)
class Rail:
    """One thing whose power is told."""

    name: str
    kind: str
    """`jetson`, `hwmon`, `rapl` or `nvml`."""
    unit: str
    """Of `read`: WATTS now, or JOULES counted since some time."""
    read: Callable[[], float | None] = field(repr=False, compare=False)
    """None where the sensor does not answer."""
    update_ms: float | None = None
    """How often the sensor has a new figure; None: not told."""
    wraps_at_j: float | None = None
    """Where a counter starts again from 0."""


@dataclass(frozen=True)
class Rails:
    """All that was found."""

    rails: Sequence[Rail]
    total_of: tuple[str, ...]
    """Which rails add up to the total: none of them feeds another. Empty: nobody can tell."""
    unreadable: tuple[str, ...] = ()
    """What is there and may not be read: a line each, with the command that mends it."""
    gpu: NvmlGpu | None = field(default=None, repr=False, compare=False)

    def close(self) -> None:
        """Let go of NVML."""
        if self.gpu is not None:
            self.gpu.close()


def rails(root: Path = Path("/"), *, nvml: bool = True) -> Rails:
    """Find the rails of this machine; none where it tells nothing, as most virtual machines.

    Args:
        root: the root of the file system.
        nvml: ask NVIDIA's library, too.
    """
    on_board = [rail for rail in (*_hwmon(root), *_iio(root)) if rail.read() is not None]
    packages, unreadable = _rapl(root)
    gpu = NvmlGpu() if nvml else None
    cards = [] if gpu is None else _nvml(gpu)
    if gpu is not None and not cards:
        gpu.close()
        gpu = None
    found = _with_names_of_their_own([*on_board, *packages, *cards])
    return Rails(found, _total_of(found), tuple(unreadable), gpu)


def needed_rails(root: Path = Path("/"), *, nvml: bool = True) -> Rails:
    """As `rails`, for a user who asked for power.

    Raises:
        UserError: there is none.
    """
    found = rails(root, nvml=nvml)
    if found.rails:
        return found
    if found.unreadable:
        raise UserError(
            "--power: " + found.unreadable[0], "a sensor that may be read", "try again"
        )
    raise UserError(
        "--power: this machine tells nothing of its power (a virtual machine seldom does)",
        "a Jetson's INA3221, a hwmon chip with power1_input, RAPL, or an NVIDIA card with "
        "nvidia-ml-py",
        "measure on the machine itself, or leave out --power",
    )


def _total_of(found: Sequence[Rail]) -> tuple[str, ...]:
    """The outermost rails.

    A Jetson's input rail feeds all others. Without one, its rails are beside each other but for
    those that are known to be behind another. RAPL's packages hold their cores; memory is beside
    them; `psys`, where it is, holds all, but many boards tell nothing sensible there. A card is
    beside the processor. Of other hwmon chips nobody can tell what feeds what.
    """
    jetson = [rail.name for rail in found if rail.kind == "jetson"]
    if jetson:
        inputs = [name for name in INPUT_RAILS if name in jetson]
        outer = [name for name in jetson if name not in RAILS_BEHIND_ANOTHER]
        return (inputs[0],) if inputs else tuple(outer)
    beside = [
        rail.name
        for rail in found
        if rail.kind == "nvml"
        or (rail.kind == "rapl" and re.match(r"(package|dram)", rail.name) is not None)
    ]
    return tuple(beside) if beside else tuple(rail.name for rail in found if len(found) == 1)


def _hwmon(root: Path) -> Iterator[Rail]:
    seen: set[Path] = set()
    for place in ("sys/class/hwmon/hwmon*", "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"):
        for monitor in sorted(root.glob(place)):
            if monitor.resolve() in seen:
                continue
            seen.add(monitor.resolve())
            chip = read_text(str(monitor / "name"))
            if chip in _MONITORS:
                yield from _ina3221(monitor)
            else:
                yield from _watt_meters(monitor, chip, root)


def _ina3221(monitor: Path) -> Iterator[Rail]:
    update_ms = read_number(str(monitor / "update_interval"))
    for label in sorted(monitor.glob("in[1-3]_label")):
        name, channel = _name(read_text(str(label))), label.name[2]
        if name in ("", "nc"):  # not connected
            continue
        volts, amperes = monitor / f"in{channel}_input", monitor / f"curr{channel}_input"
        yield Rail(name, "jetson", WATTS, _product(volts, amperes), update_ms)


def _watt_meters(monitor: Path, chip: str, root: Path) -> Iterator[Rail]:
    update_ms = read_number(str(monitor / "update_interval"))
    on_jetson = chip == "ina238" and _is_jetson(root)
    for told in sorted(monitor.glob("power*_input")):
        number = told.name.removeprefix("power").removesuffix("_input")
        label = read_text(str(monitor / f"power{number}_label"))
        if on_jetson:
            label = read_text(str(monitor / f"in{number}_label"))
        name = _name(label or f"{chip or monitor.name} {number}")
        yield Rail(name, "jetson" if on_jetson else "hwmon", WATTS, _scaled(told, 1e-6), update_ms)


def _iio(root: Path) -> Iterator[Rail]:
    """The older form, up to JetPack 4: milliwatts of each named rail."""
    for driver in _MONITORS:
        for label in sorted(root.glob(f"sys/bus/i2c/drivers/{driver}/*/iio*/rail_name_*")):
            name, number = _name(read_text(str(label))), label.name.rpartition("_")[2]
            told = label.with_name(f"in_power{number}_input")
            if name not in ("", "nc"):
                yield Rail(name, "jetson", WATTS, _scaled(told, 1e-3))


def _rapl(root: Path) -> tuple[list[Rail], list[str]]:
    found, refused = [], False
    for zone in sorted(root.glob("sys/class/powercap/*:*")):
        counter = zone / "energy_uj"
        if zone.name.startswith("intel-rapl-mmio") or not counter.exists():
            continue  # the same package a second time, or a kind of powercap without a counter
        if read_number(str(counter)) is None:
            refused = True
            continue
        name = read_text(str(zone / "name")) or zone.name
        if zone.name.count(":") > 1:  # a part of the package that its number names
            name += "-" + zone.name.split(":")[1]
        range_uj = read_number(str(zone / "max_energy_range_uj"))
        wraps_at_j = None if range_uj is None else range_uj / 1e6
        found.append(
            Rail(name, "rapl", JOULES, _scaled(counter, 1e-6), _RAPL_MS, wraps_at_j=wraps_at_j)
        )
    lines = [
        "the processor's own meter (RAPL) may be read by root alone; allow it until the next "
        "start with: sudo chmod a+r /sys/class/powercap/*/energy_uj"
    ]
    return found, lines if refused else []


def _nvml(gpu: NvmlGpu) -> list[Rail]:
    name = gpu.name() or "NVIDIA GPU"
    if gpu.energy_j() is not None:
        return [Rail(name, "nvml", JOULES, gpu.energy_j, _NVML_COUNTER_MS)]
    if gpu.power_w() is not None:
        return [Rail(name, "nvml", WATTS, gpu.power_w, _NVML_WATTS_MS)]
    return []


def _with_names_of_their_own(found: Sequence[Rail]) -> list[Rail]:
    """Two boards may carry the same chip: the second is told apart by a number."""
    names: dict[str, int] = {}
    told = []
    for rail in found:
        number = names[rail.name] = names.get(rail.name, 0) + 1
        name = rail.name if number == 1 else f"{rail.name} {number}"
        told.append(Rail(name, rail.kind, rail.unit, rail.read, rail.update_ms, rail.wraps_at_j))
    return told


def _is_jetson(root: Path) -> bool:
    model = read_text(str(root / "proc/device-tree/model")).lower()
    return "jetson" in model or any((root / place).exists() for place in _JETSON_PLACES)


def _name(label: str) -> str:
    return re.sub(r"\W+", "_", label.strip().lower())


def _scaled(path: Path, factor: float) -> Callable[[], float | None]:
    place = str(path)

    def read() -> float | None:
        number = read_number(place)
        return None if number is None else number * factor

    return read


def _product(millivolts: Path, milliamperes: Path) -> Callable[[], float | None]:
    places = str(millivolts), str(milliamperes)

    def read() -> float | None:
        volts, amperes = (read_number(place) for place in places)
        return None if volts is None or amperes is None else volts * amperes / 1e6

    return read
