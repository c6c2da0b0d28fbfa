"""What `benchmarks/scaling.py` measures: a model file for each size and each batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from export.checkpoints import Checkpoint, open_checkpoint
from export.settings import ExportSettings
from export.ui import Say, Ui
from runtime.artifact import existing_model, meta_of_onnx
from runtime.errors import ModelError

Size = tuple[int, int]
"""(height, width) in pixels."""
FP32, INT8 = "fp32", "int8"
PRECISIONS = (FP32, INT8)
USUAL_SIZES: tuple[Size, ...] = (
    (256, 256),
    (512, 512),
    (480, 640),
    (720, 1280),
    (1080, 1920),
)
_INT8_FORM = "int8.cpu"


class Family(Protocol):
    """One generator in one precision, at any size that it takes."""

    name: str
    generator: str
    precision: str
    way: str
    """How the files came about, for people and for the JSON file."""
    scratch: bool
    """Whether the files are made for this run alone."""

    @property
    def commands(self) -> list[str]:
        """What a user runs to get the files that were made, once each."""

    @property
    def size_multiple(self) -> int:
        """Of both sides of a frame."""

    @property
    def least_side_px(self) -> int:
        """Of a frame."""

    @property
    def most_batch(self) -> int | None:
        """Frames of one inference; None: as many as are asked for."""

    def file_for(self, size_px: Size, batch: int) -> Path:
        """The file that takes `batch` frames of this size.

        Raises:
            ModelError: it cannot be made.
        """


@dataclass
class GivenFile:
    """An ONNX file that is there and takes frames of any size."""

    path: Path
    name: str = ""
    way: str = "as given"
    scratch: bool = False

    def __post_init__(self) -> None:
        meta = meta_of_onnx(existing_model(self.path))
        if meta is None or not meta.dynamic:
            size = "one size" if meta is None else "x".join(map(str, meta.frame_size_px))
            raise ModelError(
                f"{self.path.name} takes frames of {size} alone",
                "a file for frames of any size, or a checkpoint that is exported at each",
                "export it with --dynamic, or name the run that it was exported from",
            )
        self._meta = meta
        self.name = self.name or self.path.name
        self.generator, self.precision = meta.generator, meta.precision

    @property
    def commands(self) -> list[str]:
        """None: it was there."""
        return []

    @property
    def size_multiple(self) -> int:
        """As its contract says."""
        return self._meta.size_multiple

    @property
    def least_side_px(self) -> int:
        """As its contract says."""
        return self._meta.size_multiple

    @property
    def most_batch(self) -> int | None:
        """As its contract says."""
        return self._meta.batch

    def file_for(self, size_px: Size, batch: int) -> Path:
        """The file itself."""
        check_size(self, size_px)
        if batch > self._meta.batch:
            raise ModelError(
                f"--batch {batch} for {self.name}",
                f"batches of up to {self._meta.batch}, as it was exported",
                f"export it again with --dynamic --batch {batch}, or name the run",
            )
        return self.path


@dataclass
class Exports:
    """The exports of one checkpoint, made when they are first asked for.

    A generator that retouches a frame gets an export for each frame size (`--frame-size`), whose
    network looks at a small copy. Another is exported once for frames of any size (`--dynamic`),
    or with `fixed` at each size (`--imgsz`).

    Args:
        checkpoint: a run, a `generator.safetensors` or a foreign one.
        folder: where the files go.
        fixed: as above.
        precisions: which ones are made together.
        most_batch: frames of one inference that a dynamic export has to take.
        calibration: pictures for INT8; None: those that it was trained on.
    """

    checkpoint: Checkpoint
    folder: Path
    fixed: bool
    precisions: Sequence[str]
    most_batch: int
    calibration: Path | None
    say: Say
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from trainer.generators.retouch import RetouchingGenerator

        retouches = isinstance(self.checkpoint.generator, RetouchingGenerator)
        self.way = "frame-size" if retouches else "imgsz" if self.fixed else "dynamic"
        path = self.checkpoint.path
        self.name = path.parent.name or path.name
        self._made: dict[tuple[Size, int] | None, dict[str, Path]] = {}
        self._norm_stats: str | None = None

    @property
    def resizes(self) -> bool:
        """Whether any frame goes in: the graph brings it to the network's size."""
        return self.way == "frame-size"

    def file_for(self, size_px: Size, batch: int, precision: str) -> Path:
        """The file that takes `batch` frames of this size.

        Raises:
            ModelError: it did not pass the gate.
        """
        key = None if self.way == "dynamic" else (size_px, batch)
        if key not in self._made:
            self._made[key] = self._export(size_px, batch, len(self._made))
        if precision not in self._made[key]:
            raise ModelError(
                f"the {precision.upper()} export of {self.name} does not pass the gate",
                "a file that draws the same picture",
                "calibrate on pictures like the camera's: --calibration DIR",
            )
        return self._made[key][precision]

    def _export(self, size_px: Size, batch: int, number: int) -> dict[str, Path]:
        from export.job import export_subject
        from export.subjects import subject_of_checkpoint

        dynamic = self.way == "dynamic"
        int8 = INT8 in self.precisions
        settings = ExportSettings(
            int8=int8,
            targets=("cpu",),
            frame_size_px=size_px if self.resizes else None,
            network_size_px=size_px if self.way == "imgsz" else None,
            dynamic=dynamic,
            batch=self.most_batch if dynamic else batch,
            # Chosen once, so that all sizes run one network.
            norm_stats=self._norm_stats,
            calibration=self.calibration if int8 else None,
            build=False,
            verify=int8,
        )
        command = _command(self.name, settings)
        self.commands.append(command)
        self.say(command)
        subject = subject_of_checkpoint(self.checkpoint, settings, lambda _: None)
        self._norm_stats = subject.meta.norm_stats
        out = self.folder / str(number)
        if int8:
            exported = export_subject(subject, out, settings, Ui(lambda _: None))
            forms = {FP32: FP32, INT8: _INT8_FORM}
            return {
                precision: exported.onnx_files[form]
                for precision, form in forms.items()
                if form in exported.onnx_files
            }
        from export.gate import write_meta

        # FP32 is the graph as it is: nothing is compared, and at 1080p that would take minutes.
        path = out / "model.onnx"
        out.mkdir(parents=True, exist_ok=True)
        subject.write(path)
        write_meta(path, replace(subject.meta, verified=False))
        return {FP32: path}


@dataclass
class ExportedFamily:
    """One precision of `Exports`."""

    exports: Exports
    precision: str
    scratch: bool = True

    def __post_init__(self) -> None:
        checkpoint = self.exports.checkpoint
        self.name = f"{self.exports.name} {self.precision}"
        self.generator = checkpoint.name
        self.way = self.exports.way

    @property
    def commands(self) -> list[str]:
        """Of all exports so far."""
        return self.exports.commands

    @property
    def size_multiple(self) -> int:
        """1 where the graph resizes the frame."""
        return 1 if self.exports.resizes else self.exports.checkpoint.size_multiple

    @property
    def least_side_px(self) -> int:
        """As `size_multiple`."""
        return 1 if self.exports.resizes else self.exports.checkpoint.least_side_px

    @property
    def most_batch(self) -> int | None:
        """Exports are made for what is asked."""
        return None

    def file_for(self, size_px: Size, batch: int) -> Path:
        """As `Exports.file_for`."""
        return self.exports.file_for(size_px, batch, self.precision)


def families_of(
    models: Iterable[Path],
    folder: Path,
    *,
    precisions: Sequence[str],
    fixed: bool,
    most_batch: int,
    calibration: Path | None,
    say: Say,
) -> list[Family]:
    """What the arguments name: an ONNX file is one family, a checkpoint one for each precision.

    Args:
        models: dynamic ONNX files, runs or checkpoints.
        folder: exports go below it.
        precisions: of checkpoints; empty: FP32.
        fixed, most_batch, calibration, say: as `Exports` has them.

    Raises:
        ModelError: a file that is missing, of one size, or in another precision than asked.
    """
    families: list[Family] = []
    for number, path in enumerate(models):
        if path.suffix.lower() == ".onnx":
            given = GivenFile(path)
            if precisions and given.precision not in precisions:
                raise ModelError(
                    f"--precision {precisions[0]} for {path.name}, which is {given.precision}",
                    "a run or a checkpoint, of which any precision can be made",
                    "leave --precision out, or name the run",
                )
            families.append(given)
            continue
        if path.suffix.lower() in (".engine", ".plan"):
            raise ModelError(
                f"{path.name} is an engine, which is built for its sizes",
                "a run, a checkpoint or a dynamic ONNX file",
                "measure it with: python benchmarks/latency.py",
            )
        exports = Exports(
            checkpoint=open_checkpoint(path),
            folder=folder / f"export-{number}",
            fixed=fixed,
            precisions=precisions or (FP32,),
            most_batch=most_batch,
            calibration=calibration,
            say=say,
        )
        families += [ExportedFamily(exports, precision) for precision in precisions or (FP32,)]
    return families


def check_size(family: Family, size_px: Size, flag: str = "--size") -> None:
    """Refuse a size that the network cannot take.

    Raises:
        ModelError: naming the multiple, and the nearest size.
    """
    fitting = nearest_size(family, size_px)
    if fitting != size_px:
        multiple, least = family.size_multiple, family.least_side_px
        raise ModelError(
            f"{flag} {told_size(size_px)} for {family.name} ({family.generator})",
            f"height and width in multiples of {multiple} pixels, at least {least}",
            f"use {flag} {told_size(fitting)}",
        )


def nearest_size(family: Family, size_px: Size) -> Size:
    """The nearest size that the network takes: as the runtime brings frames to a dynamic one."""
    multiple, least = family.size_multiple, family.least_side_px
    height, width = (max(least, (side + multiple // 2) // multiple * multiple) for side in size_px)
    return height, width


def usual_sizes(family: Family) -> list[Size]:
    """`USUAL_SIZES` as this network takes them, each once, smallest first."""
    sizes = {nearest_size(family, size_px) for size_px in USUAL_SIZES}
    return sorted(sizes, key=lambda size_px: (math.prod(size_px), size_px))


def told_size(size_px: Size) -> str:
    """`480x640`: height and width, as p2p-export has them."""
    return f"{size_px[0]}x{size_px[1]}"


def _command(name: str, settings: ExportSettings) -> str:
    """What a user types for such an export."""
    parts = ["p2p-export", name, "--out DIR", "--no-engine"]
    if settings.int8:
        parts.append("--int8 --target cpu")
    if settings.calibration:
        parts.append("--calibration DIR")
    if settings.frame_size_px:
        parts.append(f"--frame-size {told_size(settings.frame_size_px)}")
    if settings.network_size_px:
        parts.append(f"--imgsz {told_size(settings.network_size_px)}")
    if settings.dynamic:
        parts.append("--dynamic")
    if settings.batch > 1:
        parts.append(f"--batch {settings.batch}")
    if settings.norm_stats:
        parts.append(f"--norm-stats {settings.norm_stats}")
    if not settings.verify:
        parts.append("--no-verify")
    return " ".join(parts)
