"""What is timed: a model file of ours, or a peer of it. Each is a row of every table.

`Row` is all that a measurement asks of either; `benchmarks/peers/__init__.py` makes the peers.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta
from runtime.engines import open_engine
from runtime.engines.base import Engine
from runtime.engines.trt_times import DeviceTimes
from runtime.errors import UserError
from runtime.frame import Image
from runtime.translator import Translator

OURS = "ours"
PEER = "peer"


class Row(Protocol):
    """One thing that is timed. Whoever opened it closes it.

    The three steps are called one after the other, always by one thread, with pictures that
    may change their size from call to call.
    """

    name: str
    """What people call it in every table; no two rows of one run share it."""
    role: str
    """`OURS` or `PEER`."""
    peer: str
    """Which peer: one of `benchmarks.peers.PEERS`; empty for ours."""
    generator: str
    """Whose it is: rows of one generator are compared with each other."""
    engine: str
    """What runs it, for people: `ONNX Runtime 1.31.1, CPU, 2 threads`."""
    precision: str
    how: str
    """A sentence or two: how it is set up, and which documentation says so."""
    file: Path | None
    """What it was loaded from."""
    frame_size_px: tuple[int, int]
    """(height, width) that the network works at."""
    load_ms: float
    """From nothing to ready to infer."""

    def prepare(self, image: Image) -> Any:
        """The stage "in": bring a picture to what `infer` takes.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.
        """

    def infer(self, batch: Any) -> Any:
        """The stage "infer": from the host's memory to the host's memory, and done at return.

        Args:
            batch: as `prepare` gave it; it may be inferred more than once.
        """

    def finish(self, drawn: Any, image: Image) -> Image:
        """The stage "out": bring what was drawn to the picture's size.

        Args:
            drawn: as `infer` gave it.
            image: the picture that `prepare` was given.

        Returns:
            uint8 [H, W, 3], BGR, of the size of `image`.
        """

    def close(self) -> None:
        """Give back all of it. May be called twice."""


@dataclass(frozen=True)
class NotRun:
    """A row that could not be measured, and why."""

    name: str
    error: UserError
    role: str = OURS
    peer: str = ""
    generator: str = ""
    file: Path | None = None

    @property
    def why(self) -> str:
        """What came, what was expected, what mends it."""
        return str(self.error)


@runtime_checkable
class TimesItsDevice(Protocol):
    """An engine that tells what the device did, between events: TensorRT's."""

    def measured(self, parts: bool = True) -> AbstractContextManager[list[DeviceTimes]]:
        """As `runtime.engines.trt.TrtEngine.measured`."""


class OurRow:
    """A model file of ours, run as `p2p-live` runs it.

    Args:
        path: an `.onnx` or `.engine` file.
        name: of the row.
        generator: of the row.
        engine: one of `runtime.engines.ENGINES`.
        threads: CPU threads of one inference; None: as `open_engine` has it.

    Raises:
        ModelError: the file is missing, broken, or does not keep the contract.
        EngineError: the engine's library or device is not here.
    """

    role: str = OURS
    peer: str = ""

    def __init__(
        self,
        path: Path,
        *,
        name: str = "",
        generator: str = "",
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        started_ns = time.perf_counter_ns()
        self._engine: Engine = open_engine(path, engine, threads)
        self.translator = Translator(self._engine, path.name)
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        self.name = name or path.name
        self.generator = generator
        self.engine = self.translator.description
        self.precision = self.meta.precision
        self.frame_size_px = self.meta.frame_size_px
        self.file: Path | None = path
        self.how = "runtime.Translator and runtime.pipeline.Pipeline, as p2p-live runs them"

    @property
    def meta(self) -> ArtifactMeta:
        """The contract of the model."""
        return self.translator.meta

    @property
    def device(self) -> TimesItsDevice | None:
        """What tells the device's own times; None: this engine does not."""
        return self._engine if isinstance(self._engine, TimesItsDevice) else None

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """Uint8 [N, h, w, 3] as `Translator.prepare` gives it; the caller's own."""
        return self.translator.prepare(image)

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As `Translator.infer`."""
        return self.translator.infer(batch)

    def finish(self, drawn: NDArray[np.uint8], image: Image) -> Image:
        """As `Translator.finish`."""
        height, width = image.shape[:2]
        return self.translator.finish(drawn, (height, width))

    def close(self) -> None:
        """Give back the engine."""
        self.translator.close()
