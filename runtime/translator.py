"""A model with its engine: a picture in, the translated picture of the same size out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta
from runtime.engines import open_engine
from runtime.engines.base import Engine
from runtime.errors import ModelError
from runtime.frame import Image, check_image, resized


def working_size_px(meta: ArtifactMeta, size_px: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that a model works on a picture of `size_px` at.

    The model's own; of a dynamic one the multiples of `meta.size_multiple` nearest to `size_px`.
    """
    if not meta.dynamic:
        return meta.frame_size_px
    height, width = (_nearest_multiple(side, meta.size_multiple) for side in size_px)
    return height, width


class Translator:
    """Translates pictures: one at a time when it is called, several at once in `batch`.

    Calling it does `prepare`, `infer` and `finish`; the pipeline times the three apart. It serves
    one thread at a time, owns the engine, and gives it back in `close` or at the end of `with`.

    Args:
        engine: an open engine.
        name: what errors call the model.
    """

    def __init__(self, engine: Engine, name: str = "this model") -> None:
        self._engine = engine
        self._name = name
        meta = engine.meta
        self._takes_one = meta.dynamic or meta.batch == 1
        self._buffer = np.empty(
            (1 if meta.dynamic else meta.batch, *meta.frame_size_px, 3), np.uint8
        )

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
        return cls(open_engine(path, engine, threads), Path(path).name)

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
            ModelError: the model takes only batches of several pictures.
        """
        check_image(image)
        height, width = image.shape[:2]
        return self.finish(self.infer(self.prepare(image)), (height, width))

    def batch(self, images: Sequence[Image]) -> list[Image]:
        """Translate several pictures with as few inferences as the model allows.

        Pictures that it works on at one size share inferences of up to `meta.batch`; a model that
        is not dynamic has one size for all. Where a model takes no fewer, the last picture fills
        the rest of the batch.

        Args:
            images: any number of uint8 [H, W, 3], BGR, each of any size.

        Returns:
            For each picture, in order, uint8 [H, W, 3], BGR, of its own size. The arrays are the
            caller's; those of one inference may lie in one block of memory.

        Raises:
            FrameError: one of them is not a uint8 [H, W, 3] array.
        """
        places: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            places.setdefault(self._working_size(check_image(image)), []).append(place)
        results: dict[int, Image] = {}
        most = self.meta.batch
        for size_px, alike in places.items():
            for start in range(0, len(alike), most):
                chosen = alike[start : start + most]
                frames = self._room(len(chosen) if self.meta.dynamic else most, size_px)
                for index, place in enumerate(chosen):
                    resized(images[place], size_px, into=frames[index])
                frames[len(chosen) :] = frames[len(chosen) - 1]
                translated = self.infer(frames)
                for index, place in enumerate(chosen):
                    height, width = images[place].shape[:2]
                    results[place] = resized(translated[index], (height, width))
        return [results[place] for place in range(len(images))]

    def check_takes_one(self) -> None:
        """Refuse a model for a camera, whose frames come one by one.

        Raises:
            ModelError: the model takes only batches of several pictures.
        """
        if not self._takes_one:
            raise ModelError(
                f"{self._name} takes batches of {self.meta.batch}",
                "batch 1 for one camera",
                "export it again without --batch, or use Translator.batch(images)",
            )

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """Bring a picture to a size that the model takes.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.

        Returns:
            uint8 [1, h, w, 3], BGR: (h, w) is `meta.frame_size_px`; for a dynamic model, the
            multiples of `meta.size_multiple` nearest to H and W, at least one. It is `image`
            itself when it has that size, else a buffer that the next `prepare` or `batch`
            overwrites.

        Raises:
            FrameError: not a uint8 [H, W, 3] array.
            ModelError: the model takes only batches of several pictures.
        """
        check_image(image)
        self.check_takes_one()
        size_px = self._working_size(image)
        if image.shape[:2] == size_px:
            frames: NDArray[np.uint8] = np.ascontiguousarray(image)[np.newaxis]
            return frames
        frames = self._room(1, size_px)
        resized(image, size_px, into=frames[0])
        return frames

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Run the engine.

        Args:
            batch: uint8 [N, h, w, 3], BGR, as `prepare` gave it or as `Engine.infer` takes it.

        Returns:
            uint8 [N, h, w, 3], BGR; a new array, the caller's own.

        Raises:
            FrameError: the model does not take a batch of this type or shape.
            ModelError, EngineError: the engine cannot run the model on it.
        """
        return self._engine.infer(batch)

    def finish(self, batch: NDArray[np.uint8], size_px: tuple[int, int]) -> Image:
        """Bring a translated picture to the size (height, width) that the caller's picture had.

        Args:
            batch: uint8 [1, h, w, 3], as `infer` gave it.
            size_px: (height, width) of the result.

        Returns:
            uint8 [height, width, 3], BGR, the caller's own: `batch[0]` itself when it has that
            size, else a new array.
        """
        return resized(batch[0], size_px)

    def _working_size(self, image: Image) -> tuple[int, int]:
        height, width = image.shape[:2]
        return working_size_px(self.meta, (height, width))

    def _room(self, count: int, size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Uninitialised uint8 [count, *size_px, 3], C-contiguous: of the last size, used again.

        Only the last size is kept, so that pictures of many sizes do not fill the memory.
        """
        if self._buffer.shape[1:3] != size_px or len(self._buffer) < count:
            self._buffer = np.empty((count, *size_px, 3), np.uint8)
        return self._buffer[:count]

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


def _nearest_multiple(size: int, multiple: int) -> int:
    """The multiple of `multiple` nearest to `size`, the larger of two; at least `multiple`."""
    return max(1, (size + multiple // 2) // multiple) * multiple
