"""From an ONNX file to a TensorRT engine, with whichever of `tensorrt` and `tensorrt-rtx` is here.

One code path for TensorRT 10.3 (JetPack 6) to 11.4 and TensorRT-RTX: a strongly typed network,
whose precision is what the ONNX says. Needs neither torch nor onnx.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from export.engine_log import (
    Layer,
    Post,
    Progress,
    in_a_thread,
    logger_of,
    progress_monitor_of,
)
from runtime import machine
from runtime.artifact import (
    BUILT_AHEAD,
    ArtifactMeta,
    meta_of_onnx,
    sha256_of,
    sidecar_of,
)
from runtime.errors import EngineError, ModelError, UserError
from runtime.files import written_whole

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""In the order of preference: the full library where it is, since it runs on every GPU."""
INSTALL_LINE = (
    "on a desktop GPU (or to build ahead of time): pip install 'pix2pix-edge[rtx]', "
    "on a Jetson: sudo apt install python3-libnvinfer"
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class BuildOptions:
    """What the builder may do; all of it can stay as it comes.

    Raises:
        EngineError: a workspace of nothing.
    """

    workspace_mib: int | None = None
    """The most scratch memory that a layer may take; None: what the GPU has."""
    timing_cache: Path | None = None
    """Measured kernels, kept from build to build: the next one takes seconds, not minutes."""
    version_compatible: bool = False
    """The engine also loads in later TensorRT versions; they run code that it brings along."""
    hardware_compatible: bool = False
    """The engine also runs on other GPUs, from Ampere on; it may be slower."""

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise EngineError(
                f"--workspace {self.workspace_mib}",
                "1 MiB or more",
                "leave --workspace out to allow all memory of the GPU",
            )

    def to_dict(self) -> dict[str, Any]:
        """As in `ArtifactMeta.build`."""
        return {
            "workspace_mib": self.workspace_mib,
            "timing_cache": self.timing_cache and str(self.timing_cache),
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware_compatible,
        }


AS_IT_COMES = BuildOptions()


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


@dataclass(frozen=True)
class _Plan:
    """What a build gave, not yet on the disk."""

    serialized: Any
    layers: tuple[Layer, ...]
    profile: dict[str, Any] | None
    timing_cache: bytes | None


def tensorrt_library() -> tuple[Any, str]:
    """The TensorRT module of this machine and its name with version.

    Raises:
        EngineError: neither is installed.
    """
    for name in LIBRARIES:
        try:
            trt = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(trt, "Builder"):
            return trt, f"{name} {trt.__version__}"
    raise EngineError(
        "no TensorRT here",
        "one of the Python packages tensorrt and tensorrt-rtx",
        INSTALL_LINE,
    )


def engine_from_onnx(
    onnx_path: Path,
    engine_path: Path,
    *,
    options: BuildOptions = AS_IT_COMES,
    on_message: Say = lambda _message: None,
    on_progress: Progress | None = None,
) -> BuiltEngine:
    """Build the engine of an exported ONNX file, and its JSON contract beside it.

    An older engine stays until the new one is whole; Ctrl-C ends the build and leaves nothing.

    Args:
        onnx_path: a file that keeps the frame-in frame-out contract.
        engine_path: where the engine goes; its contract goes to `engine_path` + `.json`.
        options: what the builder may do.
        on_message: is told the builder's warnings and errors, and options that have no effect.
        on_progress: is told a phase, its steps that are done, and all of them. Both are called
            in the caller's thread.

    Raises:
        EngineError: no TensorRT here, it cannot do an option, or it refused the model (with its
            own reason).
        ModelError: the ONNX file is missing or is not ours.
        UserError: the disk is full.
    """
    meta = contract_of(onnx_path)
    trt, library = tensorrt_library()
    options = in_effect(options, library, on_message)
    started = perf_counter()

    def build(post: Post, stopped: threading.Event) -> _Plan:
        logger = logger_of(trt, lambda message: post(partial(on_message, message)))

        def tell(phase: str, done: int, total: int) -> None:
            if on_progress:
                post(partial(on_progress, phase, done, total))

        monitor = progress_monitor_of(trt, stopped, tell)
        return _plan(trt, library, onnx_path, meta, options, logger, monitor)

    plan = in_a_thread(build)
    build_s = round(perf_counter() - started, 2)
    gpus, _ = machine.gpus()
    meta = replace(
        meta,
        onnx_sha256=sha256_of(onnx_path),
        engine_library=library,
        gpu=str(gpus[0]) if gpus else BUILT_AHEAD,
        parity=None,
        build={
            "library": library,
            **options.to_dict(),
            "profile": plan.profile,
            "seconds": build_s,
            "engine_bytes": plan.serialized.nbytes,
            "engine_sha256": hashlib.sha256(plan.serialized).hexdigest(),
        },
        layers=[layer.to_dict() for layer in plan.layers],
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    # Both are whole on the disk before either takes its place: an engine does not come to lie
    # beside the contract of another one.
    with written_whole(sidecar_of(engine_path)) as contract, written_whole(engine_path) as beside:
        beside.write_bytes(plan.serialized)
        contract.write_text(meta.to_json() + "\n", encoding="utf-8")
    if options.timing_cache and plan.timing_cache:
        try:
            with written_whole(options.timing_cache) as beside:
                beside.write_bytes(plan.timing_cache)
        except UserError as error:  # the engine is built: that is what was asked for
            on_message(f"--timing-cache: {error}")
    return BuiltEngine(engine_path, meta, engine_path.stat().st_size, build_s, plan.layers)


def profile_of(meta: ArtifactMeta, shape: Sequence[int]) -> dict[str, list[int]] | None:
    """The frames that a dynamic engine takes: `min`, `opt`, `max`, each [N, H, W, 3].

    Tuned for one frame of `meta.frame_size_px`; from a quarter of its sides to twice as long ones,
    both rounded up to `meta.size_multiple`, and up to `meta.batch` frames.

    Args:
        meta: the contract.
        shape: of the network's input, with -1 for what is open.

    Returns:
        None where nothing is open.
    """
    if all(side >= 0 for side in shape):
        return None

    def rounded_up(side: float) -> int:
        return -int(-side // meta.size_multiple) * meta.size_multiple

    best = [1, *meta.frame_size_px, 3]
    least = [1, *(rounded_up(side / 4) for side in meta.frame_size_px), 3]
    most = [meta.batch, *(rounded_up(side * 2) for side in meta.frame_size_px), 3]
    if not meta.dynamic:  # open in the file, fixed by the contract
        best = least = most = [meta.batch, *meta.frame_size_px, 3]
    return {
        name: [wanted if side < 0 else side for wanted, side in zip(sizes, shape, strict=True)]
        for name, sizes in (("min", least), ("opt", best), ("max", most))
    }


def contract_of(onnx_path: Path) -> ArtifactMeta:
    """The contract in an ONNX file of ours.

    Raises:
        ModelError: the file is missing or is not ours.
    """
    meta = meta_of_onnx(onnx_path)
    if meta is None:
        raise ModelError(
            f"{onnx_path} carries no metadata of p2p-export",
            "an ONNX file that p2p-export wrote",
            f"wrap it with: p2p-export {onnx_path}",
        )
    return meta


def in_effect(options: BuildOptions, library: str, say: Say) -> BuildOptions:
    """The options that this library heeds; those that change nothing there are told.

    Raises:
        EngineError: one that the library cannot do.
    """
    if not library.startswith("tensorrt_rtx"):
        return options
    if options.version_compatible:  # its wheel lacks the lean runtime that goes into such engines
        raise EngineError(
            f"--version-compatible with {library}",
            "the full tensorrt: engines of TensorRT-RTX load in their own version alone",
            "leave --version-compatible out, and build again after an update (it takes seconds)",
        )
    idle = []
    if options.timing_cache:
        idle.append("--timing-cache (it measures nothing while it builds)")
    if options.hardware_compatible:
        idle.append("--hardware-compatible (its engines run from Ampere on as they are)")
    if idle:
        say(f"no effect with {library}: {', '.join(idle)}")
    return replace(options, timing_cache=None, hardware_compatible=False)


def _plan(
    trt: Any,
    library: str,
    onnx_path: Path,
    meta: ArtifactMeta,
    options: BuildOptions,
    logger: Any,
    monitor: Any,
) -> _Plan:
    """Parse and build."""
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the binding's word for a null pointer: no driver, or no GPU
        raise EngineError(
            f"{library} made no builder ({logger.reason})", "a GPU that it supports", INSTALL_LINE
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        refusals = [parser.get_error(number) for number in range(parser.num_errors)]
        reasons = "; ".join(f"{each.node_operator()}: {each.desc()}" for each in refusals)
        raise EngineError(
            f"{library} cannot parse {onnx_path.name} ({reasons})",
            "operators that it knows",
            "export the checkpoint again with this version of p2p-export",
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = monitor
    cache = _configure(trt, config, options, logger)
    profile = _add_profile(builder, network, config, meta)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        mend = "close other programs, or set a --workspace below the memory that is free"
        if options.workspace_mib:
            mend = f"allow more than --workspace {options.workspace_mib}"
        raise EngineError(
            f"{library} could not build {onnx_path.name} ({logger.reason})",
            "a model that fits this GPU and its memory",
            f"{mend}, or export with a smaller --imgsz",
        )
    learnt = bytes(cache.serialize()) if cache is not None else None
    return _Plan(serialized, logger.layers, profile, learnt)


def _configure(trt: Any, config: Any, options: BuildOptions, logger: Any) -> Any:
    """Set the options; the timing cache, which must live as long as the build, or None."""
    if options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.timing_cache is None:
        return None
    path = options.timing_cache
    try:
        stored = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise EngineError(
            f"--timing-cache {path} cannot be read ({error.strerror})",
            "a file that TensorRT wrote, or none yet",
            "name another one",
        ) from error
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, False):
        logger.log(
            trt.ILogger.WARNING,
            f"--timing-cache {path} is damaged, or of another GPU or version: started anew",
        )
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _add_profile(
    builder: Any, network: Any, config: Any, meta: ArtifactMeta
) -> dict[str, Any] | None:
    frames = network.get_input(0)
    sizes = profile_of(meta, tuple(frames.shape))
    if sizes is None:
        return None
    profile = builder.create_optimization_profile()
    profile.set_shape(frames.name, *(tuple(sizes[name]) for name in ("min", "opt", "max")))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(
            f"TensorRT refused frames of {sizes}",
            "a smallest, a usual and a largest size that the model takes",
            "export with another --frame-size or --imgsz",
        )
    return {frames.name: sizes}
