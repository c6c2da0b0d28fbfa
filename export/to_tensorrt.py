"""From an ONNX file to a TensorRT engine, with whichever of `tensorrt` and `tensorrt-rtx` is here.

One code path for TensorRT 10.3 (JetPack 6) to 11.4 and TensorRT-RTX: a strongly typed network,
whose precision is what the ONNX says. Needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

from runtime import machine
from runtime.artifact import BUILT_AHEAD, ArtifactMeta, meta_of_onnx, sha256_of, sidecar_of
from runtime.errors import EngineError, ModelError
from runtime.files import write_text, written_whole

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""In the order of preference: the full library where it is, since it runs on every GPU."""
INSTALL_LINE = (
    "on a desktop GPU (or to build ahead of time): pip install 'pix2pix-edge[rtx]', "
    "on a Jetson: sudo apt install python3-libnvinfer"
)

_LAYER = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)"
    r"(?:, Constants: .*?)?, Outputs: (?P<outputs>.*?)(?:, ParameterType.*|, TacticName.*|)$"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")


@dataclass(frozen=True)
class Layer:
    """One layer of a built engine, as the builder logged it."""

    name: str
    kind: str
    """What the builder calls it: `correlation` is a convolution, `kgen` a generated kernel."""
    input_types: tuple[str, ...]
    """`Half`, `Float`, `Int8`, `UInt8`, ...: of its activations, not of its weights."""
    output_types: tuple[str, ...]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine file and what is known of it."""

    path: Path
    meta: ArtifactMeta
    size_bytes: int
    build_s: float
    layers: tuple[Layer, ...] = field(repr=False)

    @property
    def layer_types(self) -> dict[str, int]:
        """Number of layers by the type of their outputs."""
        return dict(Counter("/".join(sorted(set(layer.output_types))) for layer in self.layers))


def tensorrt_library() -> tuple[Any, str]:
    """The TensorRT module of this machine and its name with version.

    Raises:
        EngineError: neither is installed.
    """
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, "Builder"):
            return module, f"{name} {module.__version__}"
    raise EngineError(
        "no TensorRT here",
        "one of the Python packages tensorrt and tensorrt-rtx",
        INSTALL_LINE,
    )


def engine_from_onnx(
    onnx_path: Path,
    engine_path: Path,
    *,
    on_message: Callable[[str], None] = lambda _message: None,
) -> BuiltEngine:
    """Build the engine of an exported ONNX file, and its JSON contract beside it.

    Args:
        onnx_path: a file that keeps the frame-in frame-out contract.
        engine_path: where the engine goes; its contract goes to `engine_path` + `.json`.
        on_message: is told the builder's warnings and errors.

    Raises:
        EngineError: no TensorRT here, or it refused the model (with its own reason).
        ModelError: the ONNX file is missing or is not ours.
    """
    meta = meta_of_onnx(onnx_path)
    if meta is None:
        raise ModelError(
            f"{onnx_path} carries no metadata of p2p-export",
            "an ONNX file that p2p-export wrote",
            f"wrap it with: p2p-export {onnx_path}",
        )
    trt, library = tensorrt_library()
    logger = _logger(trt, on_message)
    started = perf_counter()
    builder = trt.Builder(logger)
    if builder is None:
        raise EngineError(f"{library} made no builder", "a TensorRT that works", INSTALL_LINE)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        reasons = "; ".join(
            f"{error.node_operator()}: {error.desc()}"
            for error in map(parser.get_error, range(parser.num_errors))
        )
        raise EngineError(
            f"{library} cannot parse {onnx_path.name} ({reasons})",
            "operators that it knows",
            "export the checkpoint again with this version of p2p-export",
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(
            f"{library} could not build {onnx_path.name} ({logger.last_error})",
            "a model that fits this GPU and its memory",
            "close other programs, or export with a smaller --imgsz",
        )
    build_s = perf_counter() - started
    gpus, _ = machine.gpus()
    meta = replace(
        meta,
        onnx_sha256=sha256_of(onnx_path),
        engine_library=library,
        gpu=str(gpus[0]) if gpus else BUILT_AHEAD,
        parity=None,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    with written_whole(engine_path) as beside:
        beside.write_bytes(serialized)
    write_text(sidecar_of(engine_path), meta.to_json() + "\n")
    size_bytes = engine_path.stat().st_size
    return BuiltEngine(engine_path, meta, size_bytes, build_s, layers_in_log(logger.verbose))


def layers_in_log(text: str) -> tuple[Layer, ...]:
    """The layers of the final engine, from the builder's VERBOSE log with DETAILED verbosity.

    The log is the one place that tells them without a GPU: the engine inspector wants a driver.
    """
    layers = []
    for line in text.splitlines():
        if found := _LAYER.match(line):
            layers.append(
                Layer(
                    found["name"],
                    found["kind"],
                    tuple(_DATATYPE.findall(found["inputs"])),
                    tuple(_DATATYPE.findall(found["outputs"])),
                )
            )
    return tuple(layers)


def _logger(trt: Any, on_message: Callable[[str], None]) -> Any:
    """A TensorRT logger that keeps the layer list and passes warnings on.

    A class made here, since its base class comes from the library that was found.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = "no reason given"
            self._verbose: list[str] = []

        @property
        def verbose(self) -> str:
            return "\n".join(self._verbose)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last_error = message
            if severity <= trt.ILogger.Severity.WARNING:
                on_message(message)
            elif "LayerType: " in message:
                self._verbose.append(message)

    return Logger()
