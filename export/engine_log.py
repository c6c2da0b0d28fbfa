"""What TensorRT tells while it builds: messages, progress, and the layers of the engine.

The VERBOSE log is the one place that tells the layers where there is no GPU; with one, the engine
inspector tells the same as JSON. The classes are made here, since their bases come from whichever
of `tensorrt` and `tensorrt_rtx` was found.
"""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from runtime import machine

Progress = Callable[[str, int, int], None]
"""Is told a phase's name, the steps of it that are done, and how many it has."""
Post = Callable[[Callable[[], None]], None]
"""Takes a call from one thread, to be made in another."""
_T = TypeVar("_T")

_LAYER = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)"
    r"(?:, Constants: .*?)?, Outputs: (?P<outputs>.*?)(?:, ParameterType.*|, TacticName.*|)$"
)
# TensorRT 11 and RTX: `Datatype: Half`. TensorRT 10: `Format/Datatype: Half`, and with a layout
# of its own `Format/Datatype: Thirty-two wide channel vectorized row major Int8 format`.
_DATATYPE = re.compile(r"Datatype: ([^},\]]+)")
_TYPE_WORD = re.compile(
    r"\b(FP32|FP16|BF16|FP8|FP4|Float|Half|BFloat16|BFloat|U?Int(?:4|8|32|64)|Bool)\b",
    re.IGNORECASE,
)
_SAME_TYPE = {"FP32": "Float", "FP16": "Half", "BFLOAT16": "BF16", "BFLOAT": "BF16"}
_SPELLED = (
    "Float",
    "Half",
    "BF16",
    "FP8",
    "FP4",
    "Int4",
    "Int8",
    "Int32",
    "Int64",
    "UInt8",
    "Bool",
)
_LACKS_MEMORY = re.compile(r"memory|bad_alloc|workspace", re.IGNORECASE)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Layer:
    """One layer of a built engine, as TensorRT tells it."""

    name: str
    kind: str
    """What TensorRT calls it: `correlation` and `CaskConvolution` are convolutions, `kgen` a
    generated kernel; empty where the engine keeps only names."""
    input_types: tuple[str, ...]
    """`Half`, `Float`, `Int8`, `UInt8`, ...: of its activations, not of its weights."""
    output_types: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As in `ArtifactMeta.layers`, and as JSON gives it back."""
        return {
            "name": self.name,
            "kind": self.kind,
            "input_types": list(self.input_types),
            "output_types": list(self.output_types),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layer:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError: something else.
        """
        types = (tuple(map(str, values[name])) for name in ("input_types", "output_types"))
        return cls(str(values["name"]), str(values["kind"]), *types)


def layers_in_log(text: str) -> tuple[Layer, ...]:
    """The layers of the final engine, from the builder's VERBOSE log with DETAILED verbosity."""
    return tuple(
        Layer(
            found["name"],
            found["kind"],
            tuple(map(_type_name, _DATATYPE.findall(found["inputs"]))),
            tuple(map(_type_name, _DATATYPE.findall(found["outputs"]))),
        )
        for line in text.splitlines()
        if (found := _LAYER.match(line))
    )


def layers_in_inspection(text: str) -> tuple[Layer, ...]:
    """The layers in the JSON of `EngineInspector.get_engine_information`, of TensorRT 10 and 11.

    An engine that was built without DETAILED verbosity gives names alone.

    Raises:
        ValueError: not JSON.
    """
    layers = []
    for told in json.loads(text).get("Layers", ()):
        if isinstance(told, str):
            layers.append(Layer(told, "", (), ()))
            continue
        inputs, outputs = (
            tuple(
                _type_name(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "?"))
                for tensor in told.get(side, ())
            )
            for side in ("Inputs", "Outputs")
        )
        layers.append(
            Layer(str(told.get("Name", "")), str(told.get("LayerType", "")), inputs, outputs)
        )
    return tuple(layers)


class CannotTell(Exception):  # noqa: N818 - a reason, not an error
    """Why TensorRT cannot look into an engine here."""


@dataclass(frozen=True)
class EngineInside:
    """What an engine says of itself."""

    inputs: tuple[tuple[str, str, tuple[int | str, ...]], ...] = ()
    """Name, type (`UINT8`, `FLOAT`, `HALF`, ...) and shape, `?` for what is open."""
    outputs: tuple[tuple[str, str, tuple[int | str, ...]], ...] = ()
    layers: tuple[Layer, ...] = ()


def inside_of(engine_path: Path, package: str) -> EngineInside:
    """Load an engine of anybody and ask TensorRT's engine inspector.

    Args:
        engine_path: a plain engine file.
        package: `tensorrt` or `tensorrt_rtx`, whichever built it.

    Raises:
        CannotTell: no GPU, no such package, or it does not load the engine.
    """
    gpus, why_none = machine.gpus()
    if not gpus:
        raise CannotTell(f"here is no GPU ({why_none})")
    try:
        trt = importlib.import_module(package)
    except ImportError as error:
        raise CannotTell(f"here is no {package}") from error
    logger = logger_of(trt, lambda _message: None)
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:  # the binding's word for a null pointer
        raise CannotTell(f"{package} does not start here ({logger.reason})") from error
    engine = runtime.deserialize_cuda_engine(engine_path.read_bytes())
    if engine is None:
        raise CannotTell(f"{package} {trt.__version__} here does not load it ({logger.reason})")
    tensors: dict[bool, list[tuple[str, str, tuple[int | str, ...]]]] = {True: [], False: []}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        shape = tuple("?" if side < 0 else int(side) for side in engine.get_tensor_shape(name))
        dtype = str(engine.get_tensor_dtype(name)).rpartition(".")[2]
        taken = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        tensors[taken].append((name, dtype, shape))
    inspector = engine.create_engine_inspector()
    try:
        told = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        layers = layers_in_inspection(told)
    except ValueError:  # built so that it tells nothing of its layers
        layers = ()
    return EngineInside(tuple(tensors[True]), tuple(tensors[False]), layers)


def logger_of(trt: Any, on_message: Callable[[str], None]) -> Any:
    """A TensorRT logger that keeps the layer list and passes warnings and errors on."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []
            self._layers: list[str] = []

        @property
        def reason(self) -> str:
            """The error that tells most, in one line: what lacks, else the last one."""
            lacking = [message for message in self._errors if _LACKS_MEMORY.search(message)]
            told = [*self._errors, *lacking[:1]] or ["no reason given"]
            return " ".join(told[-1].split())[:_LONGEST_REASON]

        @property
        def layers(self) -> tuple[Layer, ...]:
            return layers_in_log("\n".join(self._layers))

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self._errors.append(message)
            if severity <= trt.ILogger.WARNING:
                on_message(message)
            elif "LayerType: " in message:
                self._layers.append(message)

    return Logger()


def progress_monitor_of(trt: Any, stopped: threading.Event, on_progress: Progress) -> Any:
    """A progress monitor that tells `on_progress`, and ends the build once `stopped` is set.

    TensorRT calls it from threads of its own. Phases lie inside each other; one may finish before
    all of its steps were done.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self._steps[phase_name] = num_steps
            on_progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            on_progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.get(phase_name, 1)
            on_progress(phase_name, steps, steps)

    return Monitor()


def in_a_thread(work: Callable[[Post, threading.Event], _T]) -> _T:
    """Run `work` in a thread of its own, and what it posts in this one.

    TensorRT stays in C++ while it builds, where Python hears no Ctrl-C; this thread hears it, sets
    the event that ends the work, and waits for its end.
    """
    posts: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    stopped = threading.Event()
    with ThreadPoolExecutor(1, "tensorrt") as pool, ExitStack() as at_the_end:
        at_the_end.callback(stopped.set)  # before the pool waits for its thread
        done = pool.submit(work, posts.put, stopped)
        done.add_done_callback(lambda _done: posts.put(None))
        while (post := _next_of(posts)) is not None:
            post()
    return done.result()


def _next_of(posts: SimpleQueue[Callable[[], None] | None]) -> Callable[[], None] | None:
    while True:
        with suppress(Empty):
            return posts.get(timeout=0.5)  # on Windows, Ctrl-C does not end a wait without end


def _type_name(told: str) -> str:
    """`Half` of `Half`, `Row major linear FP16 format` and `fp16`; else the first word."""
    if not (word := _TYPE_WORD.search(told)):
        return told.split()[0] if told.split() else "?"
    name = _SAME_TYPE.get(word[1].upper(), word[1])
    return next((spelled for spelled in _SPELLED if spelled.lower() == name.lower()), name)
