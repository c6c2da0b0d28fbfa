"""A Jetson's own sensors, read from the kernel's files: GPU load, clocks, watts, heat, throttling.

Where the figures lie differs by module and JetPack:

- GPU load in tenths of a percent: `/sys/devices/platform/gpu.0/load` (Xavier, Orin; JetPack 5 to
  7), `/sys/devices/gpu.0/load` (Nano, TX2, Xavier). A Thor has no such file: NVML tells it.
- GPU clock: `/sys/class/devfreq/17000000.gpu` (JetPack 6, 7), `.ga10b` (Orin, JetPack 5), `.gv11b`
  (Xavier), `57000000.gpu` (Nano), `gpu-gpc-0` (Thor).
- Power: INA3221 monitors under hwmon with up to three named rails each, millivolts and
  milliamperes; a Thor's carrier has an INA238 besides, microwatts.
- Throttling: the cooling devices called `...-throttle-alert`, and the counters of the power
  monitor `soctherm_oc` (1 under-voltage, 2 average and 3 instantaneous over-current).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runtime.machine import read_number, read_text

_LOAD_PLACES = (
    "sys/devices/platform/gpu.0/load",
    "sys/devices/gpu.0/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/platform/17000000.gpu/load",
)
GPU_CLOCKS = re.compile(r"\w+\.(gpu|ga10b|gv11b|gp10b)|gpu-gpc-0")
INPUT_RAILS = ("vin", "vdd_in", "5v_in", "pom_5v_in")
"""A rail that feeds the whole module: its power is the total. The outermost comes first."""
RAILS_BEHIND_ANOTHER = ("vddq_vdd2_1v8ao",)
"""On an AGX Orin, which has no input rail: fed by VIN_SYS_5V0, so no part of the sum."""
_OVERALL_ZONE = "tj"
_ZONES = ("cpu", "gpu", "soc")
_COLDEST_C = -50.0
"""A sensor whose block is switched off tells -256 or nothing."""


@dataclass(frozen=True)
class _Rail:
    name: str
    voltage_mv: str
    current_ma: str
    power_uw: str
    """Paths; an INA3221 has no file for the power."""

    def power_w(self) -> float | None:
        if self.power_uw:
            power_uw = read_number(self.power_uw)
            return None if power_uw is None else power_uw / 1e6
        voltage_mv, current_ma = read_number(self.voltage_mv), read_number(self.current_ma)
        if voltage_mv is None or current_ma is None:
            return None
        return voltage_mv * current_ma / 1e6


class JetsonSensors:
    """Finds the sensors once and reads them whenever asked.

    Args:
        root: the root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._load = _first_readable(root, _LOAD_PLACES)
        self._gpu_clock = _gpu_clock(root)
        self._cpu_clocks: list[str] = []
        self._rails: list[_Rail] = []
        self._zones: list[str] = []
        self._alerts: list[str] = []
        self._alarm_counts: list[str] = []
        self._alarms_before: float | None = None
        self.present = bool(self._load) or "jetson" in (
            read_text(str(root / "proc/device-tree/model")).lower()
        )
        """Whether this is a Jetson; `/proc/device-tree` is hidden in many containers."""
        if not self.present:
            return
        self._cpu_clocks = _paths(
            root, "sys/devices/system/cpu/cpufreq", "policy*/scaling_cur_freq"
        )
        self._rails = _rails(root)
        self._zones = _zones(root)
        cooling = root / "sys/class/thermal"
        self._alerts = [
            str(folder / "cur_state")
            for folder in sorted(cooling.glob("cooling_device*"))
            if read_text(str(folder / "type")).endswith("-throttle-alert")
        ]
        self._alarm_counts = _paths(root, "sys/class/hwmon", "hwmon*/oc*_event_cnt")
        self._alarms_before = _total(self._alarm_counts)

    def sample(self) -> dict[str, float]:
        """What the sensors tell now; a figure that none tells is absent.

        Returns:
            `gpu_percent`; `gpu_clock_mhz`; `cpu_clock_mhz` of the fastest cluster; `power_w` of
            the module and `power_RAIL_w` of each rail; `temperature_c` at the hottest spot;
            `throttled`, 1 when heat or current slow the module down now or did so since the
            last sample, else 0.
        """
        figures: dict[str, float] = {}
        if not self.present:
            return figures
        load = read_number(self._load) if self._load else None
        if load is not None:
            figures["gpu_percent"] = load / 10
        clock_hz = read_number(self._gpu_clock) if self._gpu_clock else None
        if clock_hz is not None:
            figures["gpu_clock_mhz"] = clock_hz / 1e6
        if clocks_khz := _numbers(self._cpu_clocks):
            figures["cpu_clock_mhz"] = max(clocks_khz) / 1e3
        figures.update(self._power())
        heat_c = [milli / 1e3 for milli in _numbers(self._zones) if milli / 1e3 > _COLDEST_C]
        if heat_c:
            figures["temperature_c"] = max(heat_c)
        if self._alerts or self._alarm_counts:
            figures["throttled"] = float(self._is_throttled())
        return figures

    def _power(self) -> dict[str, float]:
        read = {rail.name: rail.power_w() for rail in self._rails}
        told = {name: power_w for name, power_w in read.items() if power_w is not None}
        if not told:
            return {}
        figures = {f"power_{name}_w": power_w for name, power_w in told.items()}
        inputs = [name for name in INPUT_RAILS if name in read]
        if inputs:
            if inputs[0] in told:
                figures["power_w"] = told[inputs[0]]
        elif len(told) == len(read):  # a sum that lacks a rail is wrong
            figures["power_w"] = sum(
                power_w for name, power_w in told.items() if name not in RAILS_BEHIND_ANOTHER
            )
        return figures

    def _is_throttled(self) -> bool:
        alarms = _total(self._alarm_counts)
        before = self._alarms_before
        if alarms is not None:
            self._alarms_before = alarms
        rang = alarms is not None and before is not None and alarms > before
        return rang or any(state > 0 for state in _numbers(self._alerts))


def _first_readable(root: Path, places: tuple[str, ...]) -> str:
    paths = (str(root / place) for place in places)
    return next((path for path in paths if read_number(path) is not None), "")


def _paths(root: Path, folder: str, pattern: str) -> list[str]:
    return sorted(str(path) for path in (root / folder).glob(pattern))


def _numbers(paths: list[str]) -> list[float]:
    return [number for path in paths if (number := read_number(path)) is not None]


def _total(paths: list[str]) -> float | None:
    numbers = _numbers(paths)
    return sum(numbers) if paths and len(numbers) == len(paths) else None


def _gpu_clock(root: Path) -> str:
    folders = sorted((root / "sys/class/devfreq").glob("*"))
    named = (folder for folder in folders if GPU_CLOCKS.fullmatch(folder.name))
    return next((str(folder / "cur_freq") for folder in named), "")


def _rails(root: Path) -> list[_Rail]:
    rails = []
    for monitor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        chip = read_text(str(monitor / "name"))
        if chip not in ("ina3221", "ina238"):
            continue
        for label in sorted(monitor.glob("in[1-3]_label")):
            channel = label.name[2]
            name = re.sub(r"\W+", "_", read_text(str(label)).lower())
            if name in ("", "nc"):  # not connected
                continue
            power = monitor / f"power{channel}_input"
            rails.append(
                _Rail(
                    name,
                    str(monitor / f"in{channel}_input"),
                    str(monitor / f"curr{channel}_input"),
                    str(power) if chip == "ina238" and power.exists() else "",
                )
            )
    return rails


def _zones(root: Path) -> list[str]:
    """The zone of the whole module's hottest spot; without one, those of its parts."""
    types = {
        str(zone / "temp"): read_text(str(zone / "type")).lower()
        for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    }
    overall = [path for path, kind in types.items() if kind.startswith(_OVERALL_ZONE)]
    return overall or [path for path, kind in types.items() if kind.startswith(_ZONES)]
