"""A stranger's generator checkpoint, read from its file: data only, and never loaded loosely.

Bare state dicts of pytorch-CycleGAN-and-pix2pix and of pix2pixHD (`latest_net_G.pth`). What
network it is follows from the names and shapes in it alone: no option has to be repeated.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from export.foreign_layouts import (
    JY,
    Layout,
    MisfitError,
    Weights,
    generator_from,
    is_discriminator,
    layout_of,
    norm_of,
    shape_told,
)
from runtime.errors import ModelError

COLORS = {1: "grey", 3: "RGB"}
"""Number of channels to what a person calls them; no other number comes from a camera."""

_WRAPPERS = (
    "netG",
    "net_G",
    "G",
    "generator",
    "generator_state_dict",
    "state_dict",
    "model_state_dict",
    "model",
)
_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
_A_GENERATOR = f"the state dict of a generator of {JY} or pix2pixHD"
_DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
)
"""What torch.load raises for bytes that were changed or cut off."""


@dataclass(frozen=True)
class ForeignGenerator:
    """A generator that another project trained, as a module of ours, and what it is."""

    generator: nn.Module
    """On the CPU, FP32, in evaluation mode; float [N, C, H, W], RGB or grey, -1 to 1, to the
    same."""
    name: str
    """`unet_256`, `resnet_9blocks` and the like, `pix2pixhd_global` or `pix2pixhd_local`."""
    description: str
    """One line for people."""
    norm: str
    """`batch`, `instance` or `none`."""
    input_channels: int
    """3 (RGB) or 1 (grey)."""
    output_channels: int
    """3 (RGB) or 1 (grey)."""
    size_multiple: int
    """Height and width of its input are multiples of this many pixels."""
    size_px: int
    """A side to export for when none is asked for: what its project trains at by default."""


def open_foreign_checkpoint(path: Path) -> ForeignGenerator:
    """Read a state dict of pytorch-CycleGAN-and-pix2pix or pix2pixHD, `.pth` or `.safetensors`.

    Raises:
        ModelError: missing, damaged, holding more than tensors, or no generator of these projects
            that takes and gives a grey or RGB picture.
    """
    weights = _without_prefixes(_state_dict_of(path))
    layout = None
    try:
        layout = layout_of(weights)
        if layout is None:
            raise _no_generator(path, weights)
        _check_channels(path, layout)
        norm = norm_of(weights, layout)
        generator = generator_from(weights, layout, norm)
    except MisfitError as misfit:
        raise ModelError(
            f"{path.name} looks like {layout.name if layout else 'a generator'}, but {misfit}",
            f"{_A_GENERATOR}, whole and unchanged",
            "name the file as its project wrote it, or export a changed network to ONNX and name "
            "that file",
        ) from misfit
    return ForeignGenerator(
        generator=generator,
        name=layout.name,
        description=_described(weights, layout, norm),
        norm=norm,
        input_channels=layout.input_channels,
        output_channels=layout.output_channels,
        size_multiple=layout.size_multiple,
        size_px=layout.size_px,
    )


def _described(weights: Weights, layout: Layout, norm: str) -> str:
    learned = sum(
        tensor.numel() for name, tensor in weights.items() if name.endswith((".weight", ".bias"))
    )
    dropout = {
        True: "trained with dropout",
        False: "no dropout",
        None: "dropout leaves no trace",
    }[layout.dropout]
    return (
        f"{layout.family}: ngf {layout.ngf}, {norm if norm != 'none' else 'no'} norm, {dropout}, "
        f"{COLORS[layout.input_channels]} to {COLORS[layout.output_channels]}, "
        f"{learned / 1e6:.3f} M parameters"
    )


def _check_channels(path: Path, layout: Layout) -> None:
    if layout.input_channels not in COLORS:
        raise ModelError(
            f"{path.name} ({layout.name}) takes {layout.input_channels} channels, as a label or "
            "edge map has",
            "3 (RGB) or 1 (grey): all that a camera gives",
            "use a generator that was trained on pictures (pix2pixHD: --label_nc 0 --no_instance)",
        )
    if layout.output_channels not in COLORS:
        raise ModelError(
            f"{path.name} ({layout.name}) gives {layout.output_channels} channels",
            "3 (RGB) or 1 (grey): a picture that can be shown",
            "use a generator that draws pictures",
        )


def _no_generator(path: Path, weights: Weights) -> ModelError:
    if is_discriminator(weights):
        return ModelError(
            f"{path.name} is a discriminator",
            f"{_A_GENERATOR}, which draws the pictures",
            "name the *_net_G.pth beside it",
        )
    entries = [f"{name} {shape_told(tensor)}" for name, tensor in weights.items()]
    return ModelError(
        f"{path.name} holds no generator that is known here, but {_first(entries)}",
        _A_GENERATOR,
        "name its *_net_G.pth; another network goes in as an ONNX file",
    )


def _first(entries: list[str]) -> str:
    shown = ", ".join(entries[:3])
    return f"{shown} and {len(entries) - 3} more" if len(entries) > 3 else shown or "nothing"


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _state_dict_of(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        raise ModelError(f"{path} is a folder", "a file", "name the *_net_G.pth in it")
    if not path.is_file():
        raise ModelError(
            f"no such checkpoint: {path}", _A_GENERATOR, "check the path: *_net_G.pth"
        )
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise _damaged(path, "no whole safetensors file") from error
    return _unwrapped(path, _unpickled(path))


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise _damaged(path, "empty")
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path)
    elif not start.startswith(b"\x80"):
        raise _damaged(path, f"no file of PyTorch (it starts with {start[:8]!r})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL ([\w.]*\w)", str(error))
        raise _pickled_objects(path, kind.group(1) if kind else None) from error
    except _DAMAGED as error:
        raise _damaged(path, "damaged or cut off") from error


def _check_archive(path: Path) -> None:
    """Tell a TorchScript archive, a damaged one and other people's zip files from a state dict."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.partition("/")[2] for name in archive.namelist()}
    except _DAMAGED as error:
        raise _damaged(path, "damaged or cut off") from error
    if "constants.pkl" in members:
        raise ModelError(
            f"{path.name} is a TorchScript archive, which holds code",
            "a bare state dict",
            'save it again with torch.save(netG.state_dict(), "FILE"), or export it to ONNX',
        )
    if "data.pkl" not in members:
        raise _damaged(path, "a zip file, but none of PyTorch")


def _pickled_objects(path: Path, kind: str | None) -> ModelError:
    return ModelError(
        f"{path.name} holds pickled objects or code{f' ({kind})' if kind else ''}, which nothing "
        "here runs",
        "a bare state dict: tensors and their names",
        'where you trust it, save it again with torch.save(netG.state_dict(), "FILE")',
    )


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"{path.name} is {what}", _A_GENERATOR, "copy or download it again, whole")


def _unwrapped(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The state dict itself, or the one under a usual name of a dict.

    Raises:
        ModelError: there is none.
    """
    if _is_state_dict(loaded):
        return dict(loaded)
    if isinstance(loaded, dict) and {"state", "param_groups"} <= loaded.keys():
        raise ModelError(
            f"{path.name} is the state of an optimizer",
            _A_GENERATOR,
            "name the *_net_G.pth beside it",
        )
    if isinstance(loaded, dict):
        for key in _WRAPPERS:
            if _is_state_dict(loaded.get(key)):
                return dict(loaded[key])
        found = _first([f"{key} ({type(value).__name__})" for key, value in loaded.items()])
    else:
        found = f"a {type(loaded).__name__}"
    raise ModelError(
        f"{path.name} holds no state dict, but {found}",
        f"{_A_GENERATOR}, bare or under one of the names {', '.join(_WRAPPERS)}",
        'save it again with torch.save(netG.state_dict(), "FILE")',
    )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    )
