"""One start, in a process of its own: from the first line of Python to the second frame.

Run by `benchmarks.starts.runs`, which says what to start by a JSON object as the only argument.
The last line on the standard output is a JSON object. What is not needed to take the first stamp
is imported after it.
"""

from __future__ import annotations

import sys
import time

_FIRST_LINE_NS = time.perf_counter_ns()


def main() -> None:
    """Start what `sys.argv[1]` asks for, and tell what each stage took."""
    import json

    from runtime.errors import UserError

    asked = json.loads(sys.argv[1])
    start = _Start(asked["spawned_at_ns"])
    try:
        {"ours": _ours, "torch": _torch, "onnxruntime": _onnxruntime}[asked["kind"]](start, asked)
    except UserError as error:
        sys.stdout.write("\n" + json.dumps({"error": str(error)}) + "\n")
        sys.exit(2)
    told: dict[str, object] = {"stages_ms": start.stages_ms, "memory_mb": start.memory_mb}
    if asked["tell_files"]:
        told["files"] = _files_in_use()
    sys.stdout.write("\n" + json.dumps(told) + "\n")


class _Start:
    """The stages so far. What looking at the memory takes is in none of them."""

    def __init__(self, spawned_at_ns: int) -> None:
        self.stages_ms: dict[str, float] = {
            # Linux, macOS and Windows count these nanoseconds alike in all processes.
            "interpreter": (_FIRST_LINE_NS - spawned_at_ns) / 1e6
        }
        self.memory_mb: dict[str, dict[str, float]] = {}
        self._since_ns = _FIRST_LINE_NS

    def ends(self, stage: str, memory: str = "") -> None:
        now_ns = time.perf_counter_ns()
        self.stages_ms[stage] = (now_ns - self._since_ns) / 1e6
        if memory:
            self.memory_mb[memory] = _memory_mb()
        self._since_ns = time.perf_counter_ns()


def _ours(start: _Start, asked: dict[str, object]) -> None:
    """What `p2p-live` does until a frame is translated."""
    from importlib import import_module

    import runtime.cli  # noqa: F401 - all that the command imports
    from runtime.engines import choose_engine
    from runtime.sources import open_source
    from runtime.translator import Translator

    model, engine, threads = str(asked["model"]), str(asked["engine"]), asked["threads"]
    chosen = choose_engine(model, engine).engine.partition("-")[0]
    if chosen in ("onnxruntime", "openvino"):  # TensorRT's library is named by its variant
        import_module(chosen)
    start.ends("imports", memory="at_rest")
    with Translator.load(
        model, engine=engine, threads=threads if isinstance(threads, int) else None
    ) as translator:
        start.ends("loading", memory="loaded")
        source = open_source(str(asked["picture"]))
        frame = source.read()
        assert frame is not None
        translator(frame.image)
        start.ends("first_frame")
        translator(frame.image)
        start.ends("second_frame", memory="at_the_end")
        source.close()


def _torch(start: _Start, asked: dict[str, object]) -> None:
    """A script that runs the checkpoint eagerly: torch's own way, float tensors of -1 to 1."""
    from pathlib import Path

    import cv2
    import numpy as np
    import torch

    from export.checkpoints import open_checkpoint

    if isinstance(asked["threads"], int):
        torch.set_num_threads(asked["threads"])
    start.ends("imports", memory="at_rest")
    loaded = open_checkpoint(Path(str(asked["model"])))
    generator = loaded.generator.eval()
    start.ends("loading", memory="loaded")

    def translated() -> object:
        image = np.asarray(cv2.imread(str(asked["picture"])), np.uint8)
        side = (loaded.size_px, loaded.size_px)
        small = cv2.cvtColor(cv2.resize(image, side), cv2.COLOR_BGR2RGB)
        batch = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            drawn = generator(batch)[0]
        levels = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        rgb = np.ascontiguousarray(levels.permute(1, 2, 0).numpy())
        height, width = image.shape[:2]
        return cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (width, height))

    translated()
    start.ends("first_frame")
    translated()
    start.ends("second_frame", memory="at_the_end")


def _onnxruntime(start: _Start, asked: dict[str, object]) -> None:
    """A script around `InferenceSession` with its default options."""
    from pathlib import Path

    import cv2
    import numpy as np
    import onnxruntime  # noqa: F401 - an import is what it is timed for

    from benchmarks.peers.plain_loop import PlainNetwork
    from runtime.artifact import existing_model

    start.ends("imports", memory="at_rest")
    network = PlainNetwork(existing_model(Path(str(asked["model"]))))
    start.ends("loading", memory="loaded")
    image = np.asarray(cv2.imread(str(asked["picture"])), np.uint8)
    network(image)
    start.ends("first_frame")
    network(image)
    start.ends("second_frame", memory="at_the_end")


def _memory_mb() -> dict[str, float]:
    """`rss` now, `peak` so far, `pss` (shared pages by their share); what the system tells."""
    import re

    from runtime.machine import read_text

    told = {}
    status, rollup = read_text("/proc/self/status"), read_text("/proc/self/smaps_rollup")
    for name, key, text in (
        ("rss", "VmRSS", status),
        ("peak", "VmHWM", status),
        ("pss", "Pss", rollup),
    ):
        if found := re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE):
            told[name] = int(found[1]) * 1024 / 1e6
    if "peak" not in told and sys.platform != "win32":
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told["peak"] = most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
    return told


def _files_in_use() -> list[str]:
    """The files that this start has read: modules, their bytecode, and what is mapped."""
    from runtime.machine import read_text

    files = set()
    for module in list(sys.modules.values()):
        for attribute in ("__file__", "__cached__"):
            if isinstance(path := getattr(module, attribute, None), str):
                files.add(path)
    for line in read_text("/proc/self/maps").splitlines():
        if (start := line.find("/")) >= 0 and not line.endswith("(deleted)"):
            files.add(line[start:])
    return sorted(files)
