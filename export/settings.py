"""What an export is asked for, refused where it does not fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from export.to_tensorrt import BuildOptions
from runtime.errors import ModelError

UPSAMPLES = ("keep", "subpixel")
TARGETS = ("tensorrt", "cpu")
METHODS = ("minmax", "percentile", "entropy")
"""Ways to choose the range of an activation."""
BEST = "best"
DEFAULT_OPSET = 18
"""TensorRT 10.3 (JetPack 6) parses opset 9 to 20."""
CALIBRATION_METHODS = (BEST, *METHODS)


@dataclass(frozen=True)
class ExportSettings:
    """Everything but what is exported and where to."""

    fp16: bool = False
    int8: bool = False
    targets: tuple[str, ...] = TARGETS
    """Whose form of INT8 to write."""
    network_size_px: tuple[int, int] | None = None
    """(height, width) that the generator works at; None: as trained."""
    frame_size_px: tuple[int, int] | None = None
    """(height, width) of the frames, resized inside the graph; None: the network's."""
    dynamic: bool = False
    """Frames of any size, whose sides are multiples of the generator's."""
    batch: int = 1
    """Frames of one inference."""
    opset: int = DEFAULT_OPSET
    upsample: str = "keep"
    """`subpixel`: transposed convolutions as convolution and depth-to-space, in every precision;
    INT8 is always made so."""
    norm_stats: str | None = None
    """`running` or `batch`; None: what draws better."""
    direction: str | None = None
    """`AtoB` or `BtoA`: which half of a pair is the input; None: as trained."""
    images: Path | None = None
    """Pictures for the gate; pairs also decide on `norm_stats`."""
    calibration: Path | None = None
    """Pictures that INT8 is calibrated on."""
    calibration_method: str = BEST
    fraction: float | None = None
    """Share of the calibration pictures that is used; None: at most 100 of them."""
    min_psnr_db: float | None = None
    """Of INT8's worst picture; None: the gate's own."""
    min_ssim: float | None = None
    """The same."""
    max_abs_diff: int | None = None
    """Grey levels that FP16 may be off at any pixel; None: the gate's own."""
    verify: bool = True
    build: bool = True
    """Whether to build engines."""
    build_options: BuildOptions = field(default_factory=BuildOptions)

    def __post_init__(self) -> None:
        if self.dynamic and self.frame_size_px:
            raise ModelError(
                "--dynamic with --frame-size",
                "frames of any size, or of one size that the graph resizes",
                "leave one of them out; --imgsz says what a dynamic export is tuned for",
            )
        for flag, given in (
            ("--calibration", self.calibration),
            ("--min-psnr", self.min_psnr_db),
            ("--min-ssim", self.min_ssim),
        ):
            if given is not None and not self.int8:
                raise ModelError(f"{flag} without --int8", "INT8 to calibrate", "add --int8")
        if self.max_abs_diff is not None and not self.fp16:
            raise ModelError("--max-diff without --fp16", "FP16 to compare", "add --fp16")
        if self.fraction is not None and self.calibration is None:
            raise ModelError(
                f"--fraction {self.fraction:g} without --calibration",
                "a folder that it is a share of",
                "name it with --calibration DIR",
            )
