"""Which engine files run here: the right library, the right GPU, a whole file, our contract."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from runtime import machine
from runtime.artifact import BUILT_AHEAD, INPUT_NAME, OUTPUT_NAME, ArtifactMeta, sha256_of
from runtime.engines.base import GraphShape, check_graph, told_frames
from runtime.errors import EngineError, ModelError

_AMPERE = (8, 0)
"""The compute capability from which on engines run that are `hardware_compatible`."""


def runs_with(meta: ArtifactMeta, library: str) -> bool:
    """Whether this TensorRT loads the engine: the one that built it; a later one too, if it was
    built `version_compatible`.

    Source: NVIDIA TensorRT documentation, Engine Compatibility.

    Args:
        meta: of an engine.
        library: name and version, as in `ArtifactMeta.engine_library`.
    """
    built_by = meta.engine_library or ""
    if library == built_by:
        return True
    name, _, version = library.partition(" ")
    built_name, _, built_version = built_by.partition(" ")
    here, builder = _numbers(version), _numbers(built_version)
    later = bool(builder) and here >= builder
    return name == built_name and later and _is_built(meta, "version_compatible")


def runs_on(meta: ArtifactMeta, gpu: machine.Gpu | None) -> bool:
    """Whether the engine runs on this GPU: the one that it was built on; any from Ampere on, if
    it was built `hardware_compatible`; any at all, if it was built ahead.

    Args:
        meta: of an engine.
        gpu: None, where there is none: an engine that was built ahead waits for one.
    """
    if meta.gpu == BUILT_AHEAD:
        return True
    if gpu is None:
        return False
    from_ampere_on = _numbers(gpu.compute_capability) >= _AMPERE
    return meta.gpu == str(gpu) or (from_ampere_on and _is_built(meta, "hardware_compatible"))


def library_for(path: Path, meta: ArtifactMeta) -> tuple[Any, str]:
    """A TensorRT that loads the engine, and its name with version.

    Raises:
        EngineError: it is not installed, or in another version.
    """
    name = (meta.engine_library or "").partition(" ")[0]
    try:
        trt = importlib.import_module(name) if name in ("tensorrt", "tensorrt_rtx") else None
    except ImportError:
        trt = None
    found = f"no {name}" if trt is None else f"{name} {trt.__version__}"
    if trt is None or not runs_with(meta, found):
        portable = _is_built(meta, "version_compatible")
        raise EngineError(
            f"{path.name} was built by {meta.engine_library}, and here is {found}",
            "the same version" + (" or a later one" if portable else ""),
            _build_it(path),
        )
    return trt, found


def gpu_for(path: Path, meta: ArtifactMeta) -> machine.Gpu:
    """The GPU that the engine runs on.

    Raises:
        EngineError: there is none, or it was built for another one.
    """
    gpus, why_none = machine.gpus()
    if not gpus:
        raise EngineError(
            f"{path.name} needs an NVIDIA GPU: {why_none}",
            "a GPU with its driver",
            f"run the ONNX file instead: {path.with_suffix('.onnx').name}",
        )
    if not runs_on(meta, gpus[0]):
        portable = _is_built(meta, "hardware_compatible")
        raise EngineError(
            f"{path.name} was built on {meta.gpu}, and here is {gpus[0]}",
            "a GPU of compute 8.0 or more" if portable else "the GPU that it was built on",
            _build_it(path),
        )
    return gpus[0]


def check_file(path: Path, meta: ArtifactMeta) -> None:
    """Refuse a file that is not the one that its contract was written for.

    Args:
        path: of the engine.
        meta: what lies beside it; one that tells neither size nor hash is believed.

    Raises:
        ModelError: it is shorter or longer, or holds other bytes.
    """
    build = meta.build if isinstance(meta.build, dict) else {}
    size_bytes = path.stat().st_size
    told_bytes, told_sha256 = build.get("engine_bytes"), build.get("engine_sha256")
    if told_bytes is not None and told_bytes != size_bytes:
        received = f"{path.name} has {size_bytes} bytes, its contract says {told_bytes}"
    elif told_sha256 is not None and told_sha256 != sha256_of(path):
        received = f"{path.name} is not the engine that its contract was written for"
    else:
        return
    raise ModelError(
        received, "both files as p2p-export wrote them", f"copy both again, or {_build_it(path)}"
    )


@cache
def reasons_of(trt: Any) -> Any:
    """A logger for TensorRT that keeps quiet and remembers the last error.

    One for the whole process: TensorRT goes on using the first logger that it was given, whoever
    let go of it.
    """

    class Reasons(trt.ILogger):  # type: ignore[misc]  # a class of the module that was loaded
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.reason = ""

        def take_reason(self) -> str:
            """The last error since this was asked before; empty if there was none."""
            reason, self.reason = self.reason, ""
            return reason

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.reason = " ".join(message.split())

    return Reasons()


def loaded(trt: Any, path: Path, meta: ArtifactMeta, logger: Any) -> Any:
    """TensorRT's engine of a file.

    Args:
        logger: of `reasons_of`.

    Raises:
        EngineError: it is no engine, or damaged, or this GPU cannot run it.
    """
    runtime = trt.Runtime(logger)
    if _is_built(meta, "version_compatible"):
        # Such an engine brings the runtime of its builder with it: code, so allow no other.
        runtime.engine_host_code_allowed = True
    logger.take_reason()
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        reason = logger.take_reason()
        raise EngineError(
            f"TensorRT {trt.__version__} cannot load {path.name}"
            + (f" ({reason})" if reason else ""),
            "a whole engine file for this GPU",
            _build_it(path),
        )
    return engine


def check_tensors(trt: Any, path: Path, meta: ArtifactMeta, engine: Any) -> None:
    """Refuse an engine that does not take and give the frames that its contract tells.

    Raises:
        ModelError: other tensors, other types or layouts, or another size of frames.
    """
    told = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    wanted = {INPUT_NAME: trt.TensorIOMode.INPUT, OUTPUT_NAME: trt.TensorIOMode.OUTPUT}
    if {name: engine.get_tensor_mode(name) for name in told} != wanted:
        raise _other_tensors(path, meta, f"tensors called {', '.join(told)}")
    for name in told:
        kind, layout = engine.get_tensor_dtype(name), engine.get_tensor_format(name)
        if kind != trt.DataType.UINT8 or layout != trt.TensorFormat.LINEAR:
            raise _other_tensors(
                path, meta, f"{name} as {_enumerator(kind)} {_enumerator(layout)}"
            )
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise _other_tensors(path, meta, f"{name} in the host's memory")
    check_graph(path.name, meta, _frames_of(engine, path, meta, INPUT_NAME))
    # A network that resizes inside may leave its output's size to the frames.
    _frames_of(engine, path, meta, OUTPUT_NAME)
    given = tuple(engine.get_tensor_shape(OUTPUT_NAME))
    taken = tuple(engine.get_tensor_shape(INPUT_NAME))
    if any(-1 not in sides and sides[0] != sides[1] for sides in zip(taken, given, strict=True)):
        raise _other_tensors(path, meta, f"{list(taken)} in, {list(given)} out")


def is_any_shape(engine: Any) -> bool:
    """Whether the engine wants to be told the frames' shape."""
    return -1 in tuple(engine.get_tensor_shape(INPUT_NAME))


def _frames_of(engine: Any, path: Path, meta: ArtifactMeta, name: str) -> GraphShape:
    """Frames, height and width of a tensor; None where TensorRT says -1."""
    shape = tuple(engine.get_tensor_shape(name))
    if len(shape) != 4 or shape[3] not in (3, -1):
        raise _other_tensors(path, meta, f"{name} of the shape {list(shape)}")
    count, height, width = (None if size < 0 else int(size) for size in shape[:3])
    return count, height, width


def _other_tensors(path: Path, meta: ArtifactMeta, found: str) -> ModelError:
    return ModelError(
        f"{path.name} says that it takes {told_frames(meta)}, its engine has {found}",
        "the file as p2p-export wrote it",
        _build_it(path),
    )


def _build_it(path: Path) -> str:
    return f"build it here with: p2p-export {path.with_suffix('.onnx').name}"


def _enumerator(value: Any) -> str:
    return str(getattr(value, "name", value))


def _is_built(meta: ArtifactMeta, option: str) -> bool:
    return isinstance(meta.build, dict) and meta.build.get(option) is True


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with; none in what is no version."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
