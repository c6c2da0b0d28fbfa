"""A model with its engine: a picture in, the translated picture of the same size out."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta
from runtime.engines import open_engine
from runtime.engines.base import Engine
from runtime.frame import Image, check_image, resized


class Translator:
    """Translates pictures, one at a time.

    Calling it does `prepare`, `infer` and `finish`; the pipeline times the three apart. It serves
    one thread at a time, owns the engine, and gives it back in `close` or at the end of `with`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch = np.empty((1, *engine.meta.frame_size_px, 3), np.uint8)

    @classmethod
    def load(
        cls, path: str | Path, *, engine: str = "auto", threads: int | None = None
    ) -> Translator:
        """Open an exported model.

        Args:
            path: an `.onnx` or `.engine` file.
            engine: `auto`, `onnxruntime` or `tensorrt`.
            threads: CPU threads of one inference; None: as many as there are physical cores.

        Raises:
            ModelError: the file is missing, broken or does not keep the contract.
            EngineError: the engine's library or device is not here.
        """
        return cls(open_engine(path, engine, threads))

    @property
    def meta(self) -> ArtifactMeta:
        """The contract of the model."""
        return self._engine.meta

    @property
    def description(self) -> str:
        """The engine, for people: `ONNX Runtime 1.31.1, CPU, 2 threads`."""
        return self._engine.description

    def __call__(self, image: Image) -> Image:
        """Translate one picture.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.

        Returns:
            uint8 [H, W, 3], BGR, of the same size; a new array, the caller's own.

        Raises:
            FrameError: not a uint8 [H, W, 3] array.
        """
        check_image(image)
        height, width = image.shape[:2]
        return self.finish(self.infer(self.prepare(image)), (height, width))

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """Bring a picture to the size that the model takes.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.

        Returns:
            uint8 [1, h, w, 3] with (h, w) = `meta.frame_size_px`: `image` itself when it has that
            size, else a buffer that the next `prepare` overwrites.

        Raises:
            FrameError: not a uint8 [H, W, 3] array.
        """
        check_image(image)
        if image.shape[:2] == self.meta.frame_size_px:
            batch: NDArray[np.uint8] = np.ascontiguousarray(image)[np.newaxis]
            return batch
        resized(image, self.meta.frame_size_px, into=self._batch[0])
        return self._batch

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Run the engine on what `prepare` gave; a new array of the same shape."""
        return self._engine.infer(batch)

    def finish(self, batch: NDArray[np.uint8], size_px: tuple[int, int]) -> Image:
        """Bring a translated picture to the size (height, width) that the caller's picture had.

        Args:
            batch: uint8 [1, h, w, 3], as `infer` gave it.
            size_px: (height, width) of the result.

        Returns:
            uint8 [height, width, 3], BGR; `batch[0]` itself when it has that size.
        """
        return resized(batch[0], size_px)

    def close(self) -> None:
        """Give back the engine. May be called twice."""
        self._engine.close()

    def __enter__(self) -> Translator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
