"""Matrix products by the libraries that are here: what the machine's peak is measured with.

Every way computes the same product of small integers, so that each can be checked. Weights are
given before, as a network's are, so that a library may pack them.
"""

from __future__ import annotations

import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.roofs.instructions import processor_flags

PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
ZERO_POINT = 128
"""Of the bytes that quantised products give."""
_KERNEL_TAPS = 9
_FAST_BF16 = "mlas.enable_gemm_fastmath_arm64_bfloat16"
"""ONNX Runtime's session option: FP32 products in BF16. Elsewhere it changes nothing."""

Array: TypeAlias = NDArray[Any]
Run: TypeAlias = Callable[[], Any]
"""Computes the product once, and gives it back in the library's own type."""


@dataclass(frozen=True)
class Product:
    """[rows, inner] times [inner, columns]."""

    rows: int
    inner: int
    columns: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.inner * self.columns

    @property
    def side_px(self) -> int | None:
        """Side of the picture of a 3x3 convolution that does as much; None: it is no such one."""
        side = isqrt(self.rows)
        return side if side * side == self.rows and self.inner % _KERNEL_TAPS == 0 else None

    def __str__(self) -> str:
        return f"{self.rows}x{self.inner}x{self.columns}"


@dataclass(frozen=True)
class Way:
    """One library's way of computing a product in one precision."""

    precision: str
    library: str
    operator: str
    prepare: Callable[[Product, int], Run]
    """Of a product and a number of threads."""
    is_convolution: bool = False
    """Then it computes a 3x3 convolution without padding, with as many products."""

    def takes(self, product: Product) -> bool:
        """Whether the product has the shape that it computes."""
        return not self.is_convolution or product.side_px is not None


def operands(product: Product) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """uint8 [rows, inner] of 0 to 3 and int8 [inner, columns] of -2 to 2; the same each time."""
    chance = np.random.default_rng(product.inner)
    left = chance.integers(0, 4, (product.rows, product.inner), np.uint8)
    return left, chance.integers(-2, 3, (product.inner, product.columns), np.int8)


def convolution_operands(product: Product) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """uint8 [1, C, S + 2, S + 2] and int8 [columns, C, 3, 3] of the convolution that does as much.

    Raises:
        ValueError: there is none.
    """
    if product.side_px is None:
        raise ValueError(f"{product} is no convolution of a square picture")
    channels, side = product.inner // _KERNEL_TAPS, product.side_px + 2
    chance = np.random.default_rng(product.inner)
    frame = chance.integers(0, 4, (1, channels, side, side), np.uint8)
    return frame, chance.integers(-2, 3, (product.columns, channels, 3, 3), np.int8)


def step_of(product: Product) -> float:
    """Of a quantised result: its bytes hold all sums, or nearly all."""
    return float(max(1.0, product.inner**0.5 / 8))


def cpu_ways() -> tuple[list[Way], list[str]]:
    """The ways of the libraries that are installed, and what is not."""
    ways: list[Way] = []
    absent: list[str] = []
    for name, of_library in (
        ("torch", _torch_ways),
        ("onnxruntime", _onnxruntime_ways),
        ("openvino", _openvino_ways),
    ):
        try:
            ways += of_library()
        except ImportError as error:
            absent.append(f"{name}: not measured, {error.name or error} is not installed")
    return ways, absent


# ----------------------------------------------------------------------------------------- torch


def _torch_ways(device: str = "cpu") -> Iterator[Way]:
    import torch

    library = f"torch {torch.__version__}"
    for precision, dtype in (
        ("FP32", torch.float32),
        ("FP16", torch.float16),
        ("BF16", torch.bfloat16),
    ):
        yield Way(precision, library, "mm", _torch_mm(dtype, device))
    yield Way("INT8", library, "_int_mm", _torch_int_mm(device))
    if device == "cpu":
        told = f"{library} ({torch.backends.quantized.engine})"
        yield Way("INT8", told, "quantized.linear", _torch_quantized)
    else:
        yield Way("FP32", f"{library}, TF32", "mm", _torch_mm(torch.float32, device, tf32=True))


def cuda_ways() -> list[Way]:
    """torch on the GPU. FP32 also as TF32, which the CUDA provider of ONNX Runtime computes in
    unless it is told otherwise. Not run yet: no machine of ours has a GPU.

    Raises:
        ImportError: torch is not installed.
    """
    return list(_torch_ways("cuda"))


def _torch_mm(dtype: Any, device: str, tf32: bool = False) -> Callable[[Product, int], Run]:
    def prepare(product: Product, _threads: int) -> Run:
        import torch

        left, right = (torch.from_numpy(each).to(device, dtype) for each in operands(product))
        made = torch.empty(product.rows, product.columns, dtype=dtype, device=device)
        if device == "cpu":
            return lambda: torch.mm(left, right, out=made)

        def run() -> Any:
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.mm(left, right, out=made)
            torch.cuda.synchronize()
            torch.backends.cuda.matmul.allow_tf32 = before
            return made

        return run

    return prepare


def _torch_int_mm(device: str) -> Callable[[Product, int], Run]:
    def prepare(product: Product, _threads: int) -> Run:
        import torch

        left, right = (
            torch.from_numpy(each.astype(np.int8)).to(device) for each in operands(product)
        )

        def run() -> Any:
            made = torch._int_mm(left, right)
            if device != "cpu":
                torch.cuda.synchronize()
            return made

        return run

    return prepare


def _torch_quantized(product: Product, _threads: int) -> Run:
    import torch

    left, right = operands(product)
    with warnings.catch_warnings():  # what replaces it has no such kernel for a bare product
        warnings.simplefilter("ignore")
        given = torch.quantize_per_tensor(torch.from_numpy(left).float(), 1.0, 0, torch.quint8)
        weights = torch.from_numpy(np.ascontiguousarray(right.T)).float()
        stored = torch.quantize_per_tensor(weights, 1.0, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(stored, None)
    step = step_of(product)
    return lambda: torch.ops.quantized.linear(given, packed, step, ZERO_POINT)


# ---------------------------------------------------------------------------------- onnx graphs


def _float_product(product: Product, dtype: type[np.floating[Any]]) -> tuple[Any, Array]:
    left, right = operands(product)
    return _model([("MatMul", ["x", "w"])], {"w": right.astype(dtype)}, left.astype(dtype), dtype)


def _float_convolution(product: Product) -> tuple[Any, Array]:
    frame, kernel = convolution_operands(product)
    return _model(
        [("Conv", ["x", "w"])],
        {"w": kernel.astype(np.float32)},
        frame.astype(np.float32),
        np.float32,
    )


def _integer_product(product: Product) -> tuple[Any, Array]:
    left, right = operands(product)
    return _model([("MatMulInteger", ["x", "w"])], {"w": right}, left, np.int32)


def _quantised_product(product: Product) -> tuple[Any, Array]:
    left, right = operands(product)
    names = ["x", "one", "zero", "w", "one", "zero_w", "step", "middle"]
    return _model([("QLinearMatMul", names)], {"w": right, **_scales(product)}, left, np.uint8)


def _quantised_convolution(product: Product) -> tuple[Any, Array]:
    frame, kernel = convolution_operands(product)
    names = ["x", "one", "zero", "w", "one", "zero_w", "step", "middle"]
    return _model([("QLinearConv", names)], {"w": kernel, **_scales(product)}, frame, np.uint8)


def _dequantised_convolution(product: Product) -> tuple[Any, Array]:
    """The same as Q/DQ, which OpenVINO reads."""
    frame, kernel = convolution_operands(product)
    nodes = [
        ("DequantizeLinear", ["x", "one", "zero"]),
        ("DequantizeLinear", ["w", "one", "zero_w"]),
        ("Conv", ["y0", "y1"]),
        ("QuantizeLinear", ["y2", "step", "middle"]),
    ]
    return _model(nodes, {"w": kernel, **_scales(product)}, frame, np.uint8)


def _scales(product: Product) -> dict[str, Array]:
    return {
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.uint8),
        "zero_w": np.array(0, np.int8),
        "step": np.array(step_of(product), np.float32),
        "middle": np.array(ZERO_POINT, np.uint8),
    }


def _model(
    nodes: list[tuple[str, list[str]]], stored: dict[str, Array], x: Array, gives: type
) -> tuple[Any, Array]:
    """A graph whose node number i gives `y<i>`, the last of them `y`; and what it is fed."""
    from onnx import helper, numpy_helper

    last = len(nodes) - 1
    made = [
        helper.make_node(kind, names, ["y" if at == last else f"y{at}"])
        for at, (kind, names) in enumerate(nodes)
    ]
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(each)) for each in (x.dtype, gives)]
    graph = helper.make_graph(
        made,
        "product",
        [helper.make_tensor_value_info("x", kinds[0], x.shape)],
        [helper.make_tensor_value_info("y", kinds[1], None)],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), x


# ----------------------------------------------------------------------------------- ONNX Runtime


def _onnxruntime_ways() -> Iterator[Way]:
    import onnx  # noqa: F401 - what writes the graphs
    import onnxruntime

    library = f"ONNX Runtime {onnxruntime.__version__}"

    def way(
        precision: str,
        operator: str,
        graph: Callable[[Product], tuple[Any, Array]],
        is_convolution: bool = False,
        fast_bf16: bool = False,
    ) -> Way:
        def prepare(product: Product, threads: int) -> Run:
            return _onnxruntime_run(*graph(product), threads, fast_bf16)

        return Way(precision, library, operator, prepare, is_convolution)

    yield way("FP32", "MatMul", lambda product: _float_product(product, np.float32))
    yield way("FP32", "Conv", _float_convolution, True)
    yield way("FP16", "MatMul", lambda product: _float_product(product, np.float16))
    if platform.machine() == "aarch64" and "bf16" in processor_flags():
        yield way(
            "BF16",
            f"MatMul, {_FAST_BF16}",
            lambda product: _float_product(product, np.float32),
            fast_bf16=True,
        )
    yield way("INT8", "MatMulInteger", _integer_product)
    yield way("INT8", "QLinearMatMul", _quantised_product)
    yield way("INT8", "QLinearConv", _quantised_convolution, True)


def _onnxruntime_run(model: Any, x: Array, threads: int, fast_bf16: bool) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # others have their turn
    if fast_bf16:
        options.add_session_config_entry(_FAST_BF16, "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": x})[0]


# --------------------------------------------------------------------------------------- OpenVINO


def _openvino_ways() -> Iterator[Way]:
    import onnx  # noqa: F401 - what writes the graphs
    import openvino

    library = f"OpenVINO {openvino.__version__.split('-')[0]}"
    core = openvino.Core()
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def way(
        precision: str,
        operator: str,
        graph: Callable[[Product], tuple[Any, Array]],
        is_convolution: bool = False,
        hint: str = "f32",
    ) -> Way:
        def prepare(product: Product, threads: int) -> Run:
            return _openvino_run(core, *graph(product), threads, hint)

        return Way(precision, library, operator, prepare, is_convolution)

    hints = {"FP32": "f32", "FP16": "f16", "BF16": "bf16"}
    for precision, hint in hints.items():
        if precision in offered:
            yield way(
                precision,
                f"MatMul, {hint}",
                lambda product: _float_product(product, np.float32),
                hint=hint,
            )
    yield way("FP32", "Conv, f32", _float_convolution, True)
    yield way("INT8", "Conv between DequantizeLinear", _dequantised_convolution, True)


def _openvino_run(core: Any, model: Any, x: Array, threads: int, hint: str) -> Run:
    import onnx

    with tempfile.TemporaryDirectory(prefix="p2p-roof-") as folder:
        path = Path(folder, "product.onnx")
        onnx.save(model, path)
        compiled = core.compile_model(
            str(path), "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
        )
    request = compiled.create_infer_request()

    def run() -> Array:
        given: Array = request.infer([x], share_inputs=True, share_outputs=True)[0]
        return given

    return run
