"""What the machine does while it streams: processor, memory, GPU, and a Jetson's own sensors."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

from runtime.jetson import JetsonSensors
from runtime.machine import read_text
from runtime.nvml import NvmlGpu

_AGAIN_AFTER_S = 0.5


class Monitor:
    """Tells how busy this process and its machine are; any thread may ask.

    The first sample has no CPU percentages when it comes at once: they are means since the one
    before. Asked again within half a second, it tells the same once more, so that several who
    ask (the picture, the statistics, Prometheus) do not spoil each other's means.

    Args:
        root: the root of the file system, for tests.
        again_after_s: how old a sample must be before another is taken.
    """

    def __init__(self, root: Path = Path("/"), again_after_s: float = _AGAIN_AFTER_S) -> None:
        self._root = str(root).rstrip("/")
        self._again_after_s = again_after_s
        self._lock = threading.Lock()
        self._jetson = JetsonSensors(root)
        self._gpu = NvmlGpu()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        self._figures: dict[str, float] = {}
        self._sampled_at_s = -1.0
        self._since_s = time.monotonic()
        self._process_s = time.process_time()
        self._machine_ticks = self._ticks()

    def sample(self) -> dict[str, float]:
        """The machine's figures now; what it does not tell is absent. Never raises.

        Returns:
            `cpu_percent` of this process (100: one core), `machine_cpu_percent` (100: all
            cores), `machine_memory_mb` in use, `rss_mb`, `threads`, `open_files` of this
            process; `gpu_percent`, `gpu_memory_mb`, `gpu_clock_mhz`, `throttled` (0 or 1); on a
            desktop GPU `gpu_power_w`, `gpu_temperature_c`; on a Jetson `power_w`,
            `power_RAIL_w`, `cpu_clock_mhz`, `temperature_c`. A MB is a million bytes.
        """
        with self._lock:
            now_s = time.monotonic()
            if self._sampled_at_s < 0 or now_s - self._sampled_at_s >= self._again_after_s:
                self._sampled_at_s = now_s
                self._figures = {
                    **self._cpu(now_s),
                    **self._memory(),
                    **self._process(),
                    **self._gpu.sample(),
                    **self._jetson.sample(),
                }
            return dict(self._figures)

    def close(self) -> None:
        """Let go of the GPU's library; may be called twice."""
        with self._lock:
            self._gpu.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cpu(self, now_s: float) -> dict[str, float]:
        figures = {}
        process_s, ticks = time.process_time(), self._ticks()
        if now_s - self._since_s > 0.01:
            worked_s = process_s - self._process_s
            figures["cpu_percent"] = 100 * worked_s / (now_s - self._since_s)
            self._since_s, self._process_s = now_s, process_s
        if ticks and self._machine_ticks:
            passed = ticks[1] - self._machine_ticks[1]
            if passed > 0:
                figures["machine_cpu_percent"] = 100 * (ticks[0] - self._machine_ticks[0]) / passed
        self._machine_ticks = ticks
        return figures

    def _ticks(self) -> tuple[float, float] | None:
        """Busy and all ticks of all cores since the start of the machine."""
        words = read_text(f"{self._root}/proc/stat").partition("\n")[0].split()
        try:
            user, nice, system, idle, waiting, interrupt, soft, stolen = map(float, words[1:9])
        except ValueError:
            return None
        busy = user + nice + system + interrupt + soft + stolen
        return busy, busy + idle + waiting

    def _memory(self) -> dict[str, float]:
        sizes_kb = {}
        for line in read_text(f"{self._root}/proc/meminfo").splitlines():
            name, _, size = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                sizes_kb[name] = float(size.split()[0])
        if len(sizes_kb) < 2:
            return {}
        used_kb = sizes_kb["MemTotal"] - sizes_kb["MemAvailable"]
        return {"machine_memory_mb": used_kb * 1024 / 1e6}

    def _process(self) -> dict[str, float]:
        figures = {"threads": float(threading.active_count())}
        pages = read_text(f"{self._root}/proc/self/statm").split()
        if len(pages) > 1:
            figures["rss_mb"] = float(pages[1]) * self._page_bytes / 1e6
        after_name = read_text(f"{self._root}/proc/self/stat").rpartition(")")[2].split()
        if len(after_name) > 17:
            figures["threads"] = float(after_name[17])  # those of the libraries too
        for folder in (f"{self._root}/proc/self/fd", "/dev/fd"):
            try:
                figures["open_files"] = float(len(os.listdir(folder)) - 1)  # noqa: PTH208 - faster
            except OSError:
                continue
            break
        return figures
