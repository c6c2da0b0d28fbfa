"""Engines that were built before: what the JSON beside one tells, and whether it still serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.engine_log import Layer
from export.to_tensorrt import (
    AS_IT_COMES,
    BuildOptions,
    BuiltEngine,
    contract_of,
    in_effect,
    tensorrt_library,
)
from runtime import machine
from runtime.artifact import meta_of_engine, sha256_of, sidecar_of
from runtime.engines.trt import runs_on, runs_with
from runtime.errors import EngineError, ModelError


def engine_on_disk(engine_path: Path) -> BuiltEngine:
    """An engine that was built before, as the JSON beside it tells.

    Raises:
        ModelError: the engine or its JSON is missing or damaged.
    """
    meta = meta_of_engine(engine_path)
    size_bytes = engine_path.stat().st_size
    try:
        layers = tuple(map(Layer.from_dict, meta.layers or ()))
        build_s = float((meta.build or {}).get("seconds", 0))
        expected_bytes = int((meta.build or {}).get("engine_bytes", size_bytes))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the metadata of {sidecar_of(engine_path).name} is damaged ({error!r})",
            "the JSON that p2p-export writes",
            "build the engine again with: p2p-export model.onnx",
        ) from error
    if size_bytes != expected_bytes:
        raise ModelError(
            f"{engine_path.name} has {size_bytes} bytes, and its JSON says {expected_bytes}",
            "an engine together with its own JSON file",
            "copy both files again, or build it again with: p2p-export model.onnx",
        )
    return BuiltEngine(engine_path, meta, size_bytes, build_s, layers)


def why_stale(
    onnx_path: Path, engine_path: Path, options: BuildOptions = AS_IT_COMES
) -> str | None:
    """Why the engine must be built again; None where it serves as a new build would.

    Compared are the ONNX file's hash, what it says of itself, the options, the library with its
    version, and the GPU; not the timing cache, which changes how long a build takes. A portable
    engine serves wherever `runtime` loads it.

    Raises:
        EngineError: the library here cannot do an option.
        ModelError: the ONNX file is missing or is not ours.
    """
    wanted = contract_of(onnx_path)
    if not engine_path.is_file():
        return "no engine yet"
    if not sidecar_of(engine_path).is_file():
        return f"its {sidecar_of(engine_path).name} is missing"
    try:
        meta = engine_on_disk(engine_path).meta
    except ModelError as error:
        return error.received
    if meta.onnx_sha256 != sha256_of(onnx_path):
        return f"built from another {onnx_path.name}"
    for name in ("precision", "frame_size_px", "batch", "dynamic"):
        if getattr(meta, name) != getattr(wanted, name):
            return f"built for {name} {getattr(meta, name)}, asked {getattr(wanted, name)}"
    try:
        _, library = tensorrt_library()
    except EngineError as error:
        return f"built by {meta.engine_library}, here is {error.received}"
    if not runs_with(meta, library):
        return f"built by {meta.engine_library}, here is {library}"
    gpus, _ = machine.gpus()
    here = gpus[0] if gpus else None
    if not runs_on(meta, here):
        return f"built on {meta.gpu}, here is {here or 'no GPU'}"
    asked = in_effect(options, library, lambda _message: None).to_dict()
    built: dict[str, Any] = {**AS_IT_COMES.to_dict(), **(meta.build or {})}
    flags = {
        "workspace_mib": "--workspace",
        "version_compatible": "--version-compatible",
        "hardware_compatible": "--hardware-compatible",
    }
    for name, flag in flags.items():
        if built[name] != asked[name]:
            return f"built {_told(flag, built[name])}, asked {_told(flag, asked[name])}"
    return None


def _told(flag: str, value: object) -> str:
    """`with --workspace 512`, `without --workspace`, `with --version-compatible`."""
    if value in (None, False):
        return f"without {flag}"
    return f"with {flag}" if value is True else f"with {flag} {value}"
