"""Every TensorRT name that our code calls exists in TensorRT 10.3.0, 10.13.3 and 11.4.0.

Full TensorRT cannot be installed where these tests run, so the names lie here, in `NEEDED`. Where
the lists of all public names are (`../shared/facts/tensorrt_api`), `NEEDED` is held against them.

The calls are found in the source by following TensorRT's objects: each variable that holds one is
in `HOLDS`, and what its methods return in `RETURNS`. An object that gets a new name, a method
whose result is not told here, and a name that is not in `NEEDED` fail.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import export.engine_cache
import export.engine_log
import export.to_tensorrt
import runtime.engines.trt
import runtime.engines.trt_fit
import runtime.engines.trt_lane
import runtime.engines.trt_rtx

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    export.to_tensorrt,
    export.engine_cache,
    export.engine_log,
    runtime.engines.trt,
    runtime.engines.trt_fit,
    runtime.engines.trt_lane,
    runtime.engines.trt_rtx,
)
RTX_SOURCES = (runtime.engines.trt_rtx,)
"""Sources that run with TensorRT-RTX alone, and may use `RTX_ONLY` too."""
VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0.106")
API_FILES = sorted((ROOT.parent / "shared/facts/tensorrt_api").glob("*.json"))

NEEDED = {
    "Builder": {
        "build_serialized_network",
        "create_builder_config",
        "create_network",
        "create_optimization_profile",
    },
    "BuilderFlag": {"VERSION_COMPATIBLE"},
    "DataType": {"UINT8"},
    "EngineInspector": {"get_engine_information"},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS"},
    "IBuilderConfig": {
        "add_optimization_profile",
        "create_timing_cache",
        "hardware_compatibility_level",
        "profiling_verbosity",
        "progress_monitor",
        "set_flag",
        "set_memory_pool_limit",
        "set_timing_cache",
    },
    "ICudaEngine": {
        "create_engine_inspector",
        "create_execution_context",
        "get_tensor_dtype",
        "get_tensor_format",
        "get_tensor_location",
        "get_tensor_mode",
        "get_tensor_name",
        "get_tensor_profile_shape",
        "get_tensor_shape",
        "num_io_tensors",
    },
    "IExecutionContext": {"execute_async_v3", "set_input_shape", "set_tensor_address"},
    "IHostMemory": {"nbytes"},
    "ILogger": {"ERROR", "INTERNAL_ERROR", "WARNING", "log"},
    "INetworkDefinition": {"get_input"},
    "IOptimizationProfile": {"set_shape"},
    "IProgressMonitor": {"phase_finish", "phase_start", "step_complete"},
    "ITensor": {"name", "shape"},
    "ITimingCache": {"serialize"},
    "LayerInformationFormat": {"JSON"},
    "MemoryPoolType": {"WORKSPACE"},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"},
    "OnnxParser": {"get_error", "num_errors", "parse_from_file"},
    "ParserError": {"desc", "node_operator"},
    "ProfilingVerbosity": {"DETAILED"},
    "Runtime": {"deserialize_cuda_engine", "engine_host_code_allowed"},
    "TensorFormat": {"LINEAR"},
    "TensorIOMode": {"INPUT", "OUTPUT"},
    "TensorLocation": {"DEVICE"},
}
"""By class; the same in every version of `VERSIONS`."""
RTX_ONLY = {
    "CudaGraphStrategy": {"WHOLE_GRAPH_CAPTURE"},
    "ICudaEngine": {"create_runtime_config"},
    "IRuntimeCache": {"deserialize", "serialize"},
    "IRuntimeConfig": {"create_runtime_cache", "cuda_graph_strategy", "set_runtime_cache"},
}
"""By class; what TensorRT-RTX alone has, or has before every version of `VERSIONS` does."""

MODULE = "the module"
HOLDS = {
    "trt": MODULE,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "refusals": ["ParserError"],
    "each": "ParserError",
    "config": "IBuilderConfig",
    "cache": "ITimingCache",
    "frames": "ITensor",
    "profile": "IOptimizationProfile",
    "serialized": "IHostMemory",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "self._engine": "ICudaEngine",
    "self._execution": "IExecutionContext",
    "execution": "IExecutionContext",
    "self._runtime_config": "IRuntimeConfig",
    "self._runtime_cache": "IRuntimeCache",
    "plan.serialized": "IHostMemory",
}
"""What the variables of `SOURCES` hold, by name."""
NOT_TENSORRT = {"runtime.engines.trt": {"frames"}}
"""Names of `HOLDS` that hold something else in one source."""
PLAIN = None
RETURNS = {
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("Builder", "create_optimization_profile"): "IOptimizationProfile",
    ("Builder", "build_serialized_network"): "IHostMemory",
    ("EngineInspector", "get_engine_information"): PLAIN,
    ("IBuilderConfig", "add_optimization_profile"): PLAIN,
    ("IBuilderConfig", "create_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "set_flag"): PLAIN,
    ("IBuilderConfig", "set_memory_pool_limit"): PLAIN,
    ("IBuilderConfig", "set_timing_cache"): PLAIN,
    ("ICudaEngine", "create_engine_inspector"): "EngineInspector",
    ("ICudaEngine", "create_execution_context"): "IExecutionContext",
    ("ICudaEngine", "create_runtime_config"): "IRuntimeConfig",
    ("ICudaEngine", "get_tensor_dtype"): PLAIN,
    ("ICudaEngine", "get_tensor_format"): PLAIN,
    ("ICudaEngine", "get_tensor_location"): PLAIN,
    ("ICudaEngine", "get_tensor_mode"): PLAIN,
    ("ICudaEngine", "get_tensor_name"): PLAIN,
    ("ICudaEngine", "get_tensor_profile_shape"): PLAIN,
    ("ICudaEngine", "get_tensor_shape"): PLAIN,
    ("IExecutionContext", "execute_async_v3"): PLAIN,
    ("IExecutionContext", "set_input_shape"): PLAIN,
    ("IExecutionContext", "set_tensor_address"): PLAIN,
    ("INetworkDefinition", "get_input"): "ITensor",
    ("IOptimizationProfile", "set_shape"): PLAIN,
    ("IRuntimeCache", "deserialize"): PLAIN,
    ("IRuntimeCache", "serialize"): "IHostMemory",
    ("IRuntimeConfig", "create_runtime_cache"): "IRuntimeCache",
    ("IRuntimeConfig", "set_runtime_cache"): PLAIN,
    ("ITimingCache", "serialize"): "IHostMemory",
    ("OnnxParser", "get_error"): "ParserError",
    ("OnnxParser", "parse_from_file"): PLAIN,
    ("ParserError", "desc"): PLAIN,
    ("ParserError", "node_operator"): PLAIN,
    ("Runtime", "deserialize_cuda_engine"): "ICudaEngine",
}
ANY = {
    "made by our own classes": {"logger", "monitor"},
    "an enumerator": {"severity", "value"},
    "of pycuda": {"stream", "_stream"},
}
"""Parameters and variables that are annotated `Any` and are not in `HOLDS`, by what they hold."""
RETURN_ANY = {
    "logger_of": "our class",
    "progress_monitor_of": "our class",
    "_configure": "ITimingCache",
    "create_context": "IExecutionContext",
    "loaded": "ICudaEngine",
    "reasons_of": "our class",
}
"""Our own functions that give something annotated `Any`."""

NO_EFFECT_IN_RTX = {
    "create_timing_cache": "deprecated in 1.2, to go later: not called with TensorRT-RTX",
    "set_timing_cache": "the same",
    "VERSION_COMPATIBLE": "its wheel has no lean runtime: refused with TensorRT-RTX",
    "hardware_compatibility_level": "a warning in 1.7: not set with TensorRT-RTX",
    "AMPERE_PLUS": "the same",
}
"""Names that TensorRT-RTX has (it may drop them), and why our code does not depend on it."""


class Uses:
    """The names that one source takes from TensorRT: (class, member), ("", class)."""

    def __init__(self, source: str, module: str = "") -> None:
        self.found: set[tuple[str, str]] = set()
        self.untold: list[str] = []
        self._elsewhere = NOT_TENSORRT.get(module, set())
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.expr):
                self._kind_of(node)
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._check_target(target, node.value)
            if isinstance(node, ast.NamedExpr):
                self._check_target(node.target, node.value)
            if isinstance(node, ast.For | ast.comprehension):
                kind = self._kind_of(node.iter)
                if isinstance(kind, list) and kind[0]:
                    self._expect(node.target, kind[0])
            if isinstance(node, ast.ClassDef):
                self._overridden(node)
            if isinstance(node, ast.FunctionDef):
                self._check_function(node)
            if isinstance(node, ast.AnnAssign) and _is_any(node.annotation):
                self._check_any(ast.unparse(node.target).removeprefix("self."))

    def _kind_of(self, node: ast.expr):
        """`CLASS` of an object, ("class", CLASS), ("method", CLASS, name), a list of it, None."""
        if isinstance(node, ast.Name | ast.Attribute):
            held = HOLDS.get(ast.unparse(node))
            if held and ast.unparse(node) not in self._elsewhere:
                return held
        if isinstance(node, ast.Attribute):
            return self._member(self._kind_of(node.value), node.attr)
        if isinstance(node, ast.Call):
            called = self._kind_of(node.func)
            if isinstance(called, tuple) and called[0] == "class":
                return called[1]
            if isinstance(called, tuple):
                if called[1:] not in RETURNS:
                    self.untold.append(f"RETURNS: what does {called[1]}.{called[2]} return?")
                return RETURNS.get(called[1:])
            if isinstance(node.func, ast.Name) and node.func.id in RETURN_ANY:
                kind = RETURN_ANY[node.func.id]
                return kind if kind == MODULE or kind in NEEDED else None
        if isinstance(node, ast.ListComp):
            return [self._kind_of(node.elt)]
        if isinstance(node, ast.List) and node.elts:
            return [self._kind_of(node.elts[0])]
        return None

    def _member(self, kind, name: str):
        if name.startswith("__") or kind is None or isinstance(kind, list):
            return None
        if kind == MODULE:
            self.found.add(("", name))
            return ("class", name)
        if isinstance(kind, tuple) and kind[0] == "method":
            self.untold.append(f"{kind[1]}.{kind[2]}.{name}")
            return None
        owner = kind[1] if isinstance(kind, tuple) else kind
        self.found.add((owner, name))
        return None if isinstance(kind, tuple) else ("method", owner, name)

    def _check_target(self, target: ast.expr, value: ast.expr) -> None:
        kind = self._kind_of(value)
        if isinstance(kind, list) and kind[0] is None:
            return
        if isinstance(kind, str | list):
            self._expect(target, kind)

    def _expect(self, target: ast.expr, kind) -> None:
        name = ast.unparse(target)
        if HOLDS.get(name) != kind:
            self.untold.append(f"HOLDS: {name} holds {kind}")

    def _overridden(self, node: ast.ClassDef) -> None:
        """Methods of a class derived from one of TensorRT's that carry the name of a base's."""
        for base in node.bases:
            kind = self._kind_of(base)
            if isinstance(kind, tuple):
                own = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                self.found |= {(kind[1], name) for name in own & NEEDED.get(kind[1], set())}

    def _check_function(self, node: ast.FunctionDef) -> None:
        for argument in (*node.args.args, *node.args.kwonlyargs):
            if _is_any(argument.annotation):
                self._check_any(argument.arg)
        if _is_any(node.returns) and node.name not in RETURN_ANY:
            self.untold.append(f"RETURN_ANY: {node.name}")

    def _check_any(self, name: str) -> None:
        if not {name, f"self.{name}"} & {
            *HOLDS,
            *(each for held in ANY.values() for each in held),
        }:
            self.untold.append(f"ANY: {name}")


def _is_any(annotation: ast.expr | None) -> bool:
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def uses_of(module) -> Uses:
    return Uses(Path(module.__file__).read_text(encoding="utf-8"), module.__name__)


def missing(uses: set[tuple[str, str]], names: dict[str, set[str]]) -> list[str]:
    """Those of `uses` that are not among `names`. `__version__` is in every Python package."""
    return sorted(
        f"{owner}.{member}".strip(".")
        for owner, member in uses
        if (owner and member not in names.get(owner, ()))
        or (not owner and member not in names and member != "__version__")
    )


def names_for(module) -> dict[str, set[str]]:
    """The names that this source may use."""
    if module not in RTX_SOURCES:
        return NEEDED
    owners = NEEDED.keys() | RTX_ONLY.keys()
    return {owner: NEEDED.get(owner, set()) | RTX_ONLY.get(owner, set()) for owner in owners}


@pytest.mark.parametrize("module", SOURCES, ids=lambda module: module.__name__)
def test_every_tensorrt_name_in_the_source_is_in_the_table(module):
    uses = uses_of(module)
    assert not uses.untold, "tell it in this file"
    known = names_for(module)
    assert not missing(uses.found, known), "add it to NEEDED, if every version has it"


def test_no_other_source_calls_tensorrt():
    known = {Path(module.__file__) for module in SOURCES}
    for room in ("export", "runtime", "benchmarks", "trainer"):
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = any(isinstance(n, ast.Name) and n.id == "trt" for n in ast.walk(tree))
            assert not calls or path in known, f"{path}: add it to SOURCES"


def test_the_table_holds_nothing_that_is_not_used():
    used = set().union(*(uses_of(module).found for module in SOURCES))
    for table in (NEEDED, RTX_ONLY):
        assert {(owner, member) for owner, members in table.items() for member in members} <= used


def _members(path: Path) -> dict[str, set[str]]:
    return {owner: set(found) for owner, found in json.loads(path.read_text()).items()}


@pytest.mark.skipif(not API_FILES, reason="the lists of TensorRT's names are not here")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_is_true_of_this_version(version):
    (path,) = (path for path in API_FILES if path.stem == f"api_{version}")
    names = _members(path)
    needed = {(owner, member) for owner, members in NEEDED.items() for member in members}
    assert not missing(needed | {("", owner) for owner in NEEDED}, names)


def test_the_installed_tensorrt_rtx_has_every_name():
    rtx = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    lacking = [
        f"{owner}.{member}"
        for table in (NEEDED, RTX_ONLY)
        for owner, members in table.items()
        for member in members
        if not hasattr(getattr(rtx, owner, None), member) and member not in NO_EFFECT_IN_RTX
    ]
    assert not lacking


def _found_in(source: str) -> Iterator[str]:
    uses = Uses(source)
    yield from missing(uses.found, NEEDED)
    yield from uses.untold


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("trt.IInt8Calibrator", "IInt8Calibrator"),
        ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16"),
        ("builder.platform_has_fast_fp16", "Builder.platform_has_fast_fp16"),
        ("config.int8_calibrator = None", "IBuilderConfig.int8_calibrator"),
        ("trt.Runtime(logger).load_runtime(p)", "Runtime.load_runtime"),
        ("builder.create_network(1).num_layers", "INetworkDefinition.num_layers"),
        ("net = builder.create_network(1)", "HOLDS: net holds INetworkDefinition"),
        ("[e.code() for e in [parser.get_error(0)]]", "HOLDS: e holds ParserError"),
        ("network.get_layer(0)", "RETURNS: what does INetworkDefinition.get_layer return?"),
        ("def f(thing: Any) -> None: ...", "ANY: thing"),
        ("def made() -> Any: ...", "RETURN_ANY: made"),
    ],
)
def test_a_name_that_is_not_in_every_version_is_found(source, told):
    names = set(_found_in(source))
    assert told in names


def test_a_name_of_another_class_does_not_count():
    assert missing(
        {("Builder", "create_network")}, {"Builder": {"reset"}, "Network": {"create_network"}}
    ) == ["Builder.create_network"]
