"""THE CONTRACT: what an exported file says of itself, and where it says it.

`ArtifactMeta` travels in the metadata of an ONNX file (one key, one JSON text) and beside an
engine as `NAME.engine.json`, so that the engine itself stays a plain file that trtexec loads.
Reading it needs neither onnx, nor onnxruntime, nor TensorRT: a Jetson has few of them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from runtime.errors import ModelError

SCHEMA = 1
META_KEY = "pix2pix_edge"
PRECISIONS = ("fp32", "fp16", "int8")

INPUT_NAME = "frames"
OUTPUT_NAME = "translated"

BUILT_AHEAD = "any that its library runs on: built ahead of time, without a GPU"
"""`ArtifactMeta.gpu` of an engine that TensorRT-RTX built where there was no GPU."""


@dataclass(frozen=True)
class ArtifactMeta:
    """What one exported file is, what it was made from, and what it was measured to do."""

    generator: str
    """Architecture, e.g. `unet_256`; `unknown` for a stranger's ONNX."""
    precision: str
    """`fp32`, `fp16` or `int8`: the type that the weights have inside."""
    frame_size_px: tuple[int, int]
    """(height, width) of the frames that go in and come out."""
    network_size_px: tuple[int, int]
    """(height, width) that the generator itself works at."""
    opset: int
    source: str
    """Name of the file that this was exported from."""
    source_sha256: str
    color_order: str = "BGR"
    value_range: tuple[int, int] = (0, 255)
    training_data: str = "unknown"
    """What the generator was trained on, in words."""
    quality: dict[str, float] | None = None
    """Measured on held-out pairs at the end of training: `l1` (grey levels), `psnr`, `ssim`."""
    norm_stats: str | None = None
    """`running`: BatchNorm is folded; `batch`: it became InstanceNorm, the frame's own
    statistics; None where there is no BatchNorm."""
    upsample: str = "keep"
    """`subpixel`: transposed convolutions were rewritten as convolution and depth-to-space."""
    target: str | None = None
    """Of INT8: `tensorrt` or `cpu`, whose quantised kernels the file is written for."""
    kept: dict[str, list[str]] | None = None
    """Convolutions or nodes left in a higher precision than the file's, by that precision."""
    batch: int = 1
    """Frames of one inference; with `dynamic`, the most."""
    dynamic: bool = False
    """Whether frames of any size whose sides are multiples of `size_multiple` go in, and any
    number of them up to `batch`; `frame_size_px` is then the size that it is tuned for."""
    size_multiple: int = 1
    verified: bool = True
    """False: exported with --no-verify, compared with nothing."""
    parity: dict[str, float] | None = None
    """Against the FP32 PyTorch generator: `psnr_db`, `ssim`, `max_abs_diff`, `images`."""
    onnx_sha256: str | None = None
    """Of the ONNX file that an engine was built from; none in the ONNX file itself."""
    engine_library: str | None = None
    """Library and version that built the engine, e.g. `tensorrt_rtx 1.7.1.116`."""
    gpu: str | None = None
    """GPU that the engine was built on or for."""
    build: dict[str, Any] | None = None
    """Options that the engine was built with."""
    layers: list[dict[str, Any]] | None = None
    """Of an engine: `name`, `kind`, `input_types`, `output_types` of each layer, as built."""
    exported_by: str = ""
    created_at: str = ""
    """ISO 8601, UTC."""
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One JSON object, readable by `from_json` of this and later versions."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, origin: str) -> ArtifactMeta:
        """Read what `to_json` wrote.

        Args:
            text: the JSON text.
            origin: the file's name, for the error's line.

        Raises:
            ModelError: not our JSON, or written by a newer version.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            schema = int(values["schema"])
            if schema <= SCHEMA:
                known = {f.name for f in fields(cls)}
                values = {name: value for name, value in values.items() if name in known}
                for name in ("frame_size_px", "network_size_px", "value_range"):
                    first, second = values[name]
                    values[name] = (int(first), int(second))
                return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"the metadata of {origin} is damaged ({error})",
                "the JSON that p2p-export writes",
                "export the model again with p2p-export",
            ) from error
        raise ModelError(
            f"{origin} was written with contract version {schema}",
            f"version {SCHEMA} or older",
            "update with: pip install --upgrade pix2pix-edge",
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sidecar_of(engine_path: Path) -> Path:
    """Where the contract of an engine file lies."""
    return engine_path.with_name(engine_path.name + ".json")


def existing_model(path: Path) -> Path:
    """Return `path` if a file is there.

    Raises:
        ModelError: no such file.
    """
    if path.is_file():
        return path
    raise ModelError(
        f"no such model: {path}" + (" is a folder" if path.is_dir() else ""),
        "an .onnx or .engine file",
        "make one with: p2p-export",
    )


def meta_of_onnx(path: Path) -> ArtifactMeta | None:
    """The contract inside an ONNX file, or None in an ONNX file that is not ours.

    Raises:
        ModelError: the file is missing, or is not an ONNX file.
    """
    text = _onnx_metadata(existing_model(path)).get(META_KEY)
    return None if text is None else ArtifactMeta.from_json(text, path.name)


def meta_of_engine(path: Path) -> ArtifactMeta:
    """The contract beside an engine file.

    Raises:
        ModelError: the engine or its JSON file is missing or damaged.
    """
    sidecar = sidecar_of(existing_model(path))
    if not sidecar.is_file():
        raise ModelError(
            f"{path.name} has no {sidecar.name} beside it",
            "an engine together with its JSON file",
            "copy both, or rebuild with: p2p-export model.onnx",
        )
    return ArtifactMeta.from_json(sidecar.read_text(encoding="utf-8"), sidecar.name)


# ModelProto, from onnx.proto: only the two fields that are read here.
_IR_VERSION = 1
_METADATA_PROPS = 14


def _onnx_metadata(path: Path) -> dict[str, str]:
    """`metadata_props` of an ONNX file, read without the onnx package and without the weights."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found: dict[str, str] = {}
            is_onnx = False
            for number, value in _protobuf_fields(data, 0, len(data)):
                if number == _IR_VERSION:
                    is_onnx = isinstance(value, int)
                elif number == _METADATA_PROPS and isinstance(value, slice):
                    entry = dict(_protobuf_fields(data, value.start, value.stop))
                    key, text = entry[1], entry[2]
                    if isinstance(key, slice) and isinstance(text, slice):
                        found[data[key].decode()] = data[text].decode()
            if is_onnx:
                return found
    except (ValueError, IndexError, KeyError):  # an empty file, or bytes that are no protobuf
        pass
    raise ModelError(
        f"{path} is not an ONNX file",
        "a file that p2p-export or torch.onnx.export wrote",
        "export it again with: p2p-export",
    )


def _protobuf_fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int | slice]]:
    """Number and value of each field of one message; bytes come as a slice of `data`.

    Source: the protocol buffers wire format (varint, 64-bit, length-delimited, 32-bit).
    """
    at = start
    while at < stop:
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            length, at = _varint(data, at)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if number == 0 or at + length > stop:
            raise ValueError("field past the end")
        yield number, slice(at, at + length)
        at += length


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
