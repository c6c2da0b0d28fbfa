"""An NVIDIA GPU's figures through NVML, where its Python bindings (nvidia-ml-py) are installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_SLOWED_DOWN = 0x08 | 0x20 | 0x40 | 0x80
"""NVML's reasons for a lower clock: hardware slowdown, heat (software, hardware), power brake.
The software power cap is left out: at full load it is normal."""


class NvmlGpu:
    """One GPU: the first of CUDA_VISIBLE_DEVICES, else number 0 on the bus.

    Nothing is raised where there is no GPU, driver or library: `present` is False then.
    """

    def __init__(self) -> None:
        self.present = False
        self._nvml: Any = None
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return
        self._nvml = pynvml
        try:
            self._device = _device(pynvml)
        except pynvml.NVMLError:
            self.close()
            return
        self.present = True

    def sample(self) -> dict[str, float]:
        """What the GPU tells now.

        Returns:
            `gpu_percent`, `gpu_memory_mb` in use on the whole GPU, `gpu_power_w`,
            `gpu_clock_mhz`, `gpu_temperature_c`, `throttled` (1: slowed down by heat or power
            supply, else 0). A Jetson's driver refuses most of them: those are absent.
        """
        figures: dict[str, float] = {}
        if not self.present:
            return figures
        nvml, device = self._nvml, self._device

        def tell(name: str, read: Callable[[], float]) -> None:
            try:
                figures[name] = float(read())
            except (nvml.NVMLError, AttributeError):  # not supported here, or by older bindings
                return

        tell("gpu_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu)
        tell("gpu_memory_mb", lambda: nvml.nvmlDeviceGetMemoryInfo(device).used / 1e6)
        tell("gpu_power_w", lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1e3)
        tell(
            "gpu_clock_mhz",
            lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_GRAPHICS),
        )
        tell(
            "gpu_temperature_c",
            lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
        )
        tell(
            "throttled",
            lambda: bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device) & _SLOWED_DOWN),
        )
        return figures

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded (Volta and newer); None where it does not count."""
        read = self._read("nvmlDeviceGetTotalEnergyConsumption")
        return None if read is None else read / 1e3

    def power_w(self) -> float | None:
        """Watts; of Ampere (but GA100) and newer the mean of the last second."""
        read = self._read("nvmlDeviceGetPowerUsage")
        return None if read is None else read / 1e3

    def name(self) -> str:
        """As the driver tells it; empty where it does not."""
        if not self.present:
            return ""
        try:
            told = self._nvml.nvmlDeviceGetName(self._device)
        except self._nvml.NVMLError:
            return ""
        return told.decode(errors="replace") if isinstance(told, bytes) else str(told)

    def _read(self, function: str) -> float | None:
        if not self.present:
            return None
        try:
            return float(getattr(self._nvml, function)(self._device))
        except (self._nvml.NVMLError, AttributeError):  # refused, or not in older bindings
            return None

    def close(self) -> None:
        """Let go of the library; may be called twice."""
        self.present = False
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError:  # the driver went first: nothing is left to let go of
                return


def _device(nvml: Any) -> Any:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if chosen.startswith("GPU-"):
        return nvml.nvmlDeviceGetHandleByUUID(chosen)
    return nvml.nvmlDeviceGetHandleByIndex(int(chosen) if chosen.isdecimal() else 0)
