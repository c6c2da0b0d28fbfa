"""Clocks, heat and throttling of a machine, before, during and after a run.

A benchmark on clocks that move measures the governor. What is looked at, where the system tells:

- processor: cpufreq of each cluster (now, lowest, highest allowed, highest possible, governor);
- GPU and memory of a Jetson: devfreq, and the memory controller's rate (EMC, for root alone);
- an NVIDIA card: NVML's clock and its reasons to slow down;
- temperatures: the thermal zones;
- throttling: a Jetson's over-current counters (`oc*_event_cnt`) and throttle alerts, x86's
  `thermal_throttle` counters, NVML's reasons.

A virtual machine tells none of it: then nothing is said. Sources: the kernel's documentation of
cpufreq, devfreq and thermal; NVIDIA's Jetson Linux guide on power and performance.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from runtime import machine
from runtime.jetson import GPU_CLOCKS
from runtime.machine import read_number, read_text
from runtime.nvml import NvmlGpu

EVERY_S = 1.0
_MOVED = 1.03
"""A clock that moved by more than this, from its lowest to its highest, was not locked."""
_COLDEST_C = -50.0
"""A sensor whose block is switched off tells -256 or nothing."""
_EMC_PLACES = (
    "sys/kernel/debug/bpmp/debug/clk/emc/rate",
    "sys/kernel/debug/clk/emc/clk_rate",
)
_FASTEST_MODE = re.compile(r"MAXN")


@dataclass(frozen=True)
class Domain:
    """One clock, as it is set."""

    name: str
    governor: str
    lowest_mhz: float | None
    """Allowed now; locked where it is `highest_mhz`."""
    highest_mhz: float | None
    possible_mhz: float | None
    """What the hardware can; None: not told."""
    read_mhz: Callable[[], float | None] = field(repr=False, compare=False)

    @property
    def locked(self) -> bool | None:
        """Whether it may not move; None: not told."""
        if self.lowest_mhz is None or self.highest_mhz is None:
            return None
        return self.lowest_mhz >= self.highest_mhz


@dataclass(frozen=True)
class Sample:
    """What was told at one time."""

    mhz: Mapping[str, float]
    temperatures_c: Mapping[str, float]
    slowed: Mapping[str, float]
    """Counters of throttling by name, which only grow; and states, 1 where it slows down now."""


class ClockWatch:
    """Samples now and then from a thread of its own, from `__enter__` to `__exit__`.

    Args:
        root: the root of the file system.
        every_s: seconds between two samples; a sample takes about a millisecond.
        nvml: ask NVIDIA's library, too.
    """

    def __init__(
        self, root: Path = Path("/"), every_s: float = EVERY_S, *, nvml: bool = True
    ) -> None:
        self._root = root
        self._every_s = every_s
        self._gpu = NvmlGpu() if nvml else None
        self.domains = [*_processors(root), *_devices(root), *_memory(root)]
        if self._gpu is not None and self._gpu.present:
            name = self._gpu.name() or "NVIDIA GPU"
            self.domains.append(Domain(name, "", None, None, None, self._card_mhz))
        self._zones = _zones(root)
        self._counters = _counters(root)
        self._alerts = _alerts(root)
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clocks", daemon=True)
        self._error: BaseException | None = None

    def sample(self) -> Sample:
        """Look now, and keep what was told."""
        slowed = {name: total for name, read in self._counters if (total := read()) is not None}
        slowed |= {name: state for name, read in self._alerts if (state := read()) is not None}
        if self._gpu is not None and "throttled" in (card := self._gpu.sample()):
            slowed["NVIDIA GPU"] = card["throttled"]
        told = Sample(
            {domain.name: mhz for domain in self.domains if (mhz := domain.read_mhz())},
            {
                name: milli / 1e3
                for name, place in self._zones
                if (milli := read_number(place)) is not None and milli / 1e3 > _COLDEST_C
            },
            slowed,
        )
        self.samples.append(told)
        return told

    def to_json(self) -> dict[str, Any] | None:
        """`environment["clocks"]`; None where the machine tells nothing."""
        if self._error is not None:
            raise self._error
        if not self.samples:
            self.sample()
        zones = {name: _told(self._of("temperatures_c", name)) for name, _ in self._zones}
        zones = {name: told for name, told in zones.items() if told is not None}
        slowed = self.slowed_down()
        if not (self.domains or zones or slowed or self._counters or self._alerts):
            return None
        return {
            "domains": [
                {
                    "name": domain.name,
                    "governor": domain.governor or None,
                    "lowest_mhz": domain.lowest_mhz,
                    "highest_mhz": domain.highest_mhz,
                    "possible_mhz": domain.possible_mhz,
                    "locked": domain.locked,
                    "mhz": _told(self._of("mhz", domain.name)),
                }
                for domain in self.domains
            ],
            "temperatures_c": zones,
            "slowed_down": slowed,
            "samples": len(self.samples),
        }

    def slowed_down(self) -> dict[str, float]:
        """What slowed the machine down since the first sample: how often a counter rang, or in
        how many samples a state was set."""
        names = sorted({name for sample in self.samples for name in sample.slowed})
        counters = {name for name, _ in self._counters}
        found = {}
        for name in names:
            told = self._of("slowed", name)
            found[name] = told[-1] - told[0] if name in counters else sum(map(bool, told))
        return {name: count for name, count in found.items() if count > 0}

    def warnings(self) -> list[str]:
        """What makes these timings doubtful: a line each, with the command that mends it."""
        lines = [*_mode_warnings(self._root), *self._lock_warnings()]
        for name, count in self.slowed_down().items():
            lines.append(
                f"the machine slowed itself down while it was measured ({name}: {count:.0f} "
                "times): cool it, or give it a stronger power supply, and measure again"
            )
        return lines

    def __enter__(self) -> ClockWatch:
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is None:
            self.sample()
        if self._gpu is not None:
            self._gpu.close()

    def _lock_warnings(self) -> list[str]:
        loose = [domain for domain in self.domains if domain.locked is False]
        if loose and _is_jetson(self._root):
            names = ", ".join(domain.name for domain in loose)
            return [f"clocks may move ({names}): lock them with: sudo jetson_clocks"]
        lines = []
        slow = sorted(
            {d.governor for d in loose if d.name.startswith("cpu") and d.governor != "performance"}
        )
        if slow:
            lines.append(
                f"the processor's governor is {', '.join(slow)}: "
                "sudo cpupower frequency-set -g performance"
            )
        for domain in self.domains:
            told = self._of("mhz", domain.name)
            if domain.locked is None and len(told) > 1 and max(told) > _MOVED * min(told):
                lines.append(
                    f"the clock of {domain.name} moved from {min(told):.0f} to {max(told):.0f} "
                    f"MHz: lock it with: sudo nvidia-smi -lgc {median(told):.0f}"
                )
        return lines

    def _of(self, part: str, name: str) -> list[float]:
        told = (getattr(sample, part) for sample in self.samples)
        return [values[name] for values in told if name in values]

    def _card_mhz(self) -> float | None:
        return None if self._gpu is None else self._gpu.sample().get("gpu_clock_mhz")

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                self.sample()
        except Exception as error:  # noqa: BLE001 - told by `to_json`
            self._error = error


def same_conditions(env_a: Mapping[str, Any], env_b: Mapping[str, Any]) -> str:
    """Why two runs may not be compared, by their `environment`; empty where they may.

    Power modes, governors and limits of clocks are looked at, not which machine it was. What
    one of the runs does not tell (an older file, a virtual machine) forbids nothing, but for the
    power mode: a Jetson always tells it.
    """
    modes = [env.get("power_mode") for env in (env_a, env_b)]
    if modes[0] != modes[1]:
        one, other = (mode or "no power mode" for mode in modes)
        return f"they ran under different power modes: {one} and {other}"
    limits = [_limits(env) for env in (env_a, env_b)]
    for name in limits[0].keys() & limits[1].keys():
        for what, one, other in zip(
            ("governors", "lowest clocks", "highest clocks"),
            limits[0][name],
            limits[1][name],
            strict=True,
        ):
            if None not in (one, other) and one != other:
                unit = "" if what == "governors" else " MHz"
                return f"they ran under different {what} of {name}: {one} and {other}{unit}"
    governors = [env.get("cpu_governor") for env in (env_a, env_b)]
    if None not in governors and governors[0] != governors[1]:
        one, other = governors
        return f"they ran under different governors of the processor: {one} and {other}"
    return ""


def _limits(env: Mapping[str, Any]) -> dict[str, tuple[Any, Any, Any]]:
    told = env.get("clocks") or {}
    return {
        domain["name"]: (domain["governor"], domain["lowest_mhz"], domain["highest_mhz"])
        for domain in told.get("domains", ())
    }


def _mode_warnings(root: Path) -> list[str]:
    """A Jetson that runs slower than it can. The fastest mode has not one number everywhere: on
    an Orin Nano it is 2, so its own table is asked."""
    modes = machine.power_modes(root)
    mode = machine.power_mode() if root == Path("/") else _stored_mode(root, modes)
    fastest = next((n for n, name in modes.items() if _FASTEST_MODE.match(name)), 0)
    if (
        mode is None
        or _FASTEST_MODE.match(mode)
        or mode in (f"mode {fastest}", modes.get(fastest))
    ):
        return []
    return [f"the power mode is {mode}, not the fastest one: sudo nvpmodel -m {fastest}"]


def _stored_mode(root: Path, modes: Mapping[int, str]) -> str | None:
    number = machine.stored_power_mode(root)
    return None if number is None else modes.get(number, f"mode {number}")


def _is_jetson(root: Path) -> bool:
    model = read_text(str(root / "proc/device-tree/model")).lower()
    return "jetson" in model or (root / "etc/nv_tegra_release").exists()


def _processors(root: Path) -> list[Domain]:
    found = []
    folders = (root / "sys/devices/system/cpu/cpufreq").glob("policy*")
    for folder in sorted(folders, key=lambda one: int(one.name.removeprefix("policy") or 0)):
        lowest, highest, possible = (
            _khz(folder / name)
            for name in ("scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
        )
        cpus = read_text(str(folder / "related_cpus")).split() or [folder.name[6:]]
        name = f"cpu {cpus[0]}" if len(cpus) == 1 else f"cpu {cpus[0]}-{cpus[-1]}"
        governor = read_text(str(folder / "scaling_governor"))
        reader = _reader(folder / "scaling_cur_freq", 1e-3)
        found.append(Domain(name, governor, lowest, highest, possible, reader))
    return found


def _devices(root: Path) -> list[Domain]:
    found = []
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if not GPU_CLOCKS.fullmatch(folder.name):
            continue
        lowest, highest = (
            _scaled(read_number(str(folder / name)), 1e-6) for name in ("min_freq", "max_freq")
        )
        rates = [float(rate) for rate in read_text(str(folder / "available_frequencies")).split()]
        possible = max(rates) / 1e6 if rates else None
        governor = read_text(str(folder / "governor"))
        reader = _reader(folder / "cur_freq", 1e-6)
        found.append(Domain(f"gpu {folder.name}", governor, lowest, highest, possible, reader))
    return found


def _memory(root: Path) -> list[Domain]:
    """Told without limits: the power mode sets them, and `jetson_clocks` locks the rate."""
    places = (root / place for place in _EMC_PLACES)
    readable = [place for place in places if read_number(str(place)) is not None]
    return [
        Domain("memory (EMC)", "", None, None, None, _reader(place, 1e-6))
        for place in readable[:1]
    ]


def _zones(root: Path) -> list[tuple[str, str]]:
    return [
        (read_text(str(zone / "type")) or zone.name, str(zone / "temp"))
        for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    ]


_Named = tuple[str, Callable[[], "float | None"]]


def _counters(root: Path) -> list[_Named]:
    """Counters that ring when the machine slows itself down."""
    found: list[_Named] = [
        (f"over-current {path.name.removesuffix('_event_cnt')}", _reader(path, 1.0))
        for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
    ]
    cpus = root / "sys/devices/system/cpu"
    for kind, together in (("core", sum), ("package", max)):  # all cores tell their package's
        paths = sorted(cpus.glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count"))
        if paths:
            found.append((f"heat of the {kind}", _reader_of_all(paths, together)))
    return found


def _alerts(root: Path) -> list[_Named]:
    """A Jetson's cooling devices that lower clocks: 1 while they do."""
    return [
        (kind, _reader(folder / "cur_state", 1.0))
        for folder in sorted((root / "sys/class/thermal").glob("cooling_device*"))
        if (kind := read_text(str(folder / "type"))).endswith("-throttle-alert")
    ]


def _told(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "before": round(values[0], 1),
        "least": round(min(values), 1),
        "p50": round(median(values), 1),
        "most": round(max(values), 1),
        "after": round(values[-1], 1),
    }


def _khz(path: Path) -> float | None:
    return _scaled(read_number(str(path)), 1e-3)


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


def _reader(path: Path, factor: float) -> Callable[[], float | None]:
    place = str(path)
    return lambda: _scaled(read_number(place), factor)


def _reader_of_all(
    paths: Sequence[Path], together: Callable[[list[float]], float]
) -> Callable[[], float | None]:
    places = [str(path) for path in paths]

    def read() -> float | None:
        told = [number for place in places if (number := read_number(place)) is not None]
        return together(told) if told else None

    return read
