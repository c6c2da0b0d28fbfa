"""A model with its engine: pictures in, translated pictures of the same size out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.artifact import ArtifactMeta
from runtime.buffers import FrameBuffers
from runtime.engines import open_engine
from runtime.engines.base import Engine
from runtime.errors import ModelError
from runtime.fit import FITS, Fit, Size, fit_maker
from runtime.frame import Image, check_image
from runtime.packing import Packing

__all__ = ["FITS", "Translation", "Translator", "working_size_px"]

_SIZES_KEPT = 8
"""So many sizes of pictures are prepared for at once: those of all cameras."""
_MOST_BATCHES = 256
"""A picture of 4K in tiles of 256 pixels is 180 batches of one, all packed before the first is
inferred; of other fits no more than two are out at once."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What became of several pictures, and what it cost."""

    images: list[Image]
    """uint8 [H, W, 3], BGR, in the order of the pictures; the caller's own."""
    originals: list[Image]
    """What was translated, each of the size of its image: the picture itself, or with the fit
    `crop` a view of its middle."""
    in_ms: float
    """Of all pictures: bringing them to the network's size."""
    infer_ms: float
    """Of all inferences."""
    out_ms: float
    """Bringing the results to the pictures' sizes."""


def working_size_px(meta: ArtifactMeta, size_px: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that a model works on a picture of `size_px` at.

    The model's own; of a dynamic one the multiples of `meta.size_multiple` nearest to `size_px`.
    """
    if not meta.dynamic:
        return meta.frame_size_px
    height, width = (_nearest_multiple(side, meta.size_multiple) for side in size_px)
    return height, width


class Translator:
    """Translates pictures: one when it is called, several in `batch` or `translate`.

    It owns the engine, and gives it back in `close` or at the end of `with`. As many threads may
    translate at once as the engine has streams.

    Args:
        engine: an open engine.
        name: what errors call the model.
        fit: how a picture of another size goes through the network. `stretch`: as a whole,
            whatever its aspect. `letterbox`: as a whole, aspect kept. `crop`: only the largest
            part in the middle that has the network's aspect. `tile`: in overlapping parts, at
            its own resolution.
        overlap_px: of neighbouring tiles, at least, up to a third of the tile's side; None: an
            eighth of the tile's smaller side.

    Raises:
        ModelError: a model that takes pictures of any size cannot be tiled.
        ValueError: no such fit, or an overlap below one.
    """

    def __init__(
        self,
        engine: Engine,
        name: str = "this model",
        fit: str = "stretch",
        *,
        overlap_px: int | None = None,
    ) -> None:
        if overlap_px is not None and overlap_px < 1:
            raise ValueError(f"overlap_px {overlap_px} is below 1")
        make_fit = fit_maker(fit, overlap_px)
        meta = engine.meta
        if fit == "tile" and meta.dynamic:
            raise ModelError(
                f"fit tile for {name}, which takes pictures of any size as a whole",
                "a model of a fixed size",
                "leave out --fit tile, or export it again without --dynamic",
            )
        self._engine = engine
        self._name = name
        self._tiles = fit == "tile"
        self._takes_one = meta.dynamic or meta.batch == 1 or fit == "tile"
        self._fits: _Recent[Size, Fit] = _Recent(
            lambda size_px: make_fit(size_px, working_size_px(meta, size_px))
        )
        self._batches: _Recent[Size, FrameBuffers] = _Recent(lambda _: FrameBuffers(_MOST_BATCHES))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        engine: str = "auto",
        threads: int | None = None,
        streams: int = 1,
        fit: str = "stretch",
        overlap_px: int | None = None,
    ) -> Translator:
        """Open an exported model.

        Args:
            path: an `.onnx` or `.engine` file.
            engine: one of `runtime.engines.ENGINES`.
            threads: CPU threads of one inference; None: as `open_engine` has it.
            streams: how many inferences may run at once, each asked for by a thread of its own.
            fit: as the class takes it.
            overlap_px: as the class takes it.

        Raises:
            ModelError: the file is missing, broken, does not keep the contract, or takes any
                size and cannot be tiled.
            EngineError: the engine's library or device is not here.
        """
        opened = open_engine(path, engine, threads, streams=streams)
        try:
            return cls(opened, Path(path).name, fit, overlap_px=overlap_px)
        except BaseException:
            opened.close()
            raise

    @property
    def meta(self) -> ArtifactMeta:
        """The contract of the model."""
        return self._engine.meta

    @property
    def description(self) -> str:
        """The engine, for people: `ONNX Runtime 1.31.1, CPU, 2 threads`."""
        return self._engine.description

    @property
    def streams(self) -> int:
        """How many threads may translate at once."""
        return self._engine.streams

    def __call__(self, image: Image) -> Image:
        """Translate one picture.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.

        Returns:
            uint8 [H, W, 3], BGR, of the same size, with the fit `crop` of its middle's; the
            caller's own.

        Raises:
            FrameError: not a uint8 [H, W, 3] array.
            ModelError: the model takes only batches of several pictures.
        """
        check_image(image)
        self.check_takes_one()
        return self.translate([image]).images[0]

    def batch(self, images: Sequence[Image]) -> list[Image]:
        """The images of `translate`."""
        return self.translate(images).images

    def translate(self, images: Sequence[Image]) -> Translation:
        """Translate any number of pictures with as few inferences as the model allows.

        Pictures, or their tiles, that the model works on at one size share inferences of up to
        `meta.batch`; a model that is not dynamic has one size for all. Where a model takes no
        fewer, the last frame fills the rest of the batch. Memory for pictures is used again once
        nobody refers to what was returned: none is made per frame in steady state.

        Args:
            images: uint8 [H, W, 3], BGR, each of any size.

        Returns:
            Their translations. Images of one inference may lie in one block of memory.

        Raises:
            FrameError: one of them is not a uint8 [H, W, 3] array.
            ModelError, EngineError: the engine cannot run the model on them.
        """
        watch = _Stopwatch()
        fits = [self._fits[_size(check_image(image))] for image in images]
        groups: dict[Size, list[int]] = {}
        for place, image in enumerate(images):
            groups.setdefault(working_size_px(self.meta, _size(image)), []).append(place)
        results: dict[int, Image] = {}
        for size_px, places in groups.items():
            frames = sum(fits[place].frames for place in places)
            packing = self._packing(size_px, min(frames, self.meta.batch))
            drawn: list[Image] = []
            waiting = deque(places)
            for place in places:
                packing.add(images[place], fits[place])
                batches = packing.take(all_of_them=place == places[-1])
                watch.in_ns += watch.lap()
                for batch in batches:
                    drawn.extend(self.infer(batch))
                watch.infer_ns += watch.lap()
                while waiting and (count := fits[waiting[0]].frames) <= len(drawn):
                    done = waiting.popleft()
                    results[done] = fits[done].unpack(drawn[:count])
                    del drawn[:count]
                watch.out_ns += watch.lap()
        return Translation(
            images=[results[place] for place in range(len(images))],
            originals=[fit.part(image) for fit, image in zip(fits, images, strict=True)],
            in_ms=watch.in_ns / 1e6,
            infer_ms=watch.infer_ns / 1e6,
            out_ms=watch.out_ns / 1e6,
        )

    def check_takes_one(self) -> None:
        """Refuse a model for a camera, whose frames come one by one.

        Raises:
            ModelError: the model takes only batches of several pictures, and they are not tiled.
        """
        if not self._takes_one:
            raise ModelError(
                f"{self._name} takes batches of {self.meta.batch}",
                "batch 1 for one camera",
                "export it again without --batch, or use Translator.batch(images)",
            )

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """The first of the three steps of `translate`, for one picture: bring it to the network.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.

        Returns:
            uint8 [N, h, w, 3], BGR: (h, w) is `meta.frame_size_px`; for a dynamic model, the
            multiples of `meta.size_multiple` nearest to H and W, at least one. N is 1; of tiles
            their number, rounded up to what the model takes. It is `image` itself when that has
            this size; else memory that is used again when nobody refers to it.

        Raises:
            FrameError: not a uint8 [H, W, 3] array.
            ModelError: the model takes only batches of several pictures.
        """
        check_image(image)
        self.check_takes_one()
        fit = self._fits[_size(image)]
        inferences = -(-fit.frames // self.meta.batch)
        length = fit.frames if self.meta.dynamic else inferences * self.meta.batch
        packing = self._packing(working_size_px(self.meta, _size(image)), length)
        packing.add(image, fit)
        return packing.take(all_of_them=True)[0]

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
        most = self.meta.batch
        if not self._tiles or len(batch) <= most:
            return self._engine.infer(batch)
        starts = range(0, len(batch), most)
        return np.concatenate([self._engine.infer(batch[at : at + most]) for at in starts])

    def finish(self, batch: NDArray[np.uint8], size_px: tuple[int, int]) -> Image:
        """The last of the three steps: bring what was inferred to the picture's size.

        Args:
            batch: uint8 [N, h, w, 3], as `infer` gave it of what `prepare` gave.
            size_px: (height, width) of the picture.

        Returns:
            uint8 [height, width, 3], BGR, with the fit `crop` of its middle's size; the caller's
            own: `batch[0]` itself when it has that size.
        """
        fit = self._fits[size_px]
        return fit.unpack(list(batch[: fit.frames]))

    def _packing(self, size_px: Size, length: int) -> Packing:
        dynamic = self.meta.dynamic
        if not dynamic:
            length = max(length, self.meta.batch)
        return Packing(self._batches[size_px], size_px, length, padded=not dynamic)

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


class _Stopwatch:
    """Nanoseconds of each of the three steps."""

    def __init__(self) -> None:
        self.in_ns = self.infer_ns = self.out_ns = 0
        self._last_ns = time.perf_counter_ns()

    def lap(self) -> int:
        """Nanoseconds since the last lap."""
        before_ns, self._last_ns = self._last_ns, time.perf_counter_ns()
        return self._last_ns - before_ns


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Recent(Generic[_Key, _Value]):
    """Makes a value for a key when it is first asked for, and keeps the last few.

    Any thread may ask. Pictures of ever new sizes do not fill the memory.
    """

    def __init__(self, make: Callable[[_Key], _Value]) -> None:
        self._make = make
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, key: _Key) -> _Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            else:
                self._values[key] = self._make(key)
                if len(self._values) > _SIZES_KEPT:
                    self._values.popitem(last=False)
            return self._values[key]


def _size(image: Image) -> Size:
    height, width = image.shape[:2]
    return height, width


def _nearest_multiple(size: int, multiple: int) -> int:
    """The multiple of `multiple` nearest to `size`, the larger of two; at least `multiple`."""
    return max(1, (size + multiple // 2) // multiple) * multiple
