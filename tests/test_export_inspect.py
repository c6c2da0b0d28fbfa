"""What `p2p-export --inspect` tells of ONNX files and engines, ours and anybody's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import write_negative
from test_export_onnx import meta

import export.engine_log as engine_log
from export.engine_log import Layer
from export.inspect_model import ModelFacts, inspect_model
from runtime import machine
from runtime.artifact import BUILT_AHEAD, sidecar_of
from runtime.errors import ModelError

FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def value(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def stored(name, shape, dtype=np.float32):
    return numpy_helper.from_array(np.zeros(shape, dtype), name)


def write(path, nodes, source, result, constants, opset=18, **options):
    graph = helper.make_graph(nodes, "stranger", source, result, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("custom", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=4 if opset < 11 else 10)
    model.producer_name = "a stranger"
    onnx.save(model, path, **options)
    return path


def convolution(shape=(1, 3, 32, 48), dtype=FLOAT):
    """Nodes, input, output and weights of one 3x3 convolution, 3 to 8 channels, padded."""
    numbers = np.float16 if dtype == HALF else np.float32
    return (
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4)],
        [value("x", dtype, shape)],
        [value("y", dtype, None)],
        [stored("w", (8, 3, 3, 3), numbers)],
    )


def node_of(facts: ModelFacts, name: str):
    (node,) = (node for node in facts.nodes if node.name == name)
    return node


def is_told(facts: ModelFacts, *words: str) -> str:
    """The lines as one text, once they are printable and hold `words`."""
    lines = facts.lines()
    assert max(map(len, lines[1:])) <= 100
    assert json.loads(json.dumps(facts.to_dict()))["path"] == facts.path
    text = "\n".join(lines)
    for word in words:
        assert word in text
    return text


@pytest.mark.parametrize(("dtype", "told"), [(FLOAT, "FP32"), (HALF, "FP16")])
def test_a_convolution_is_counted_in_the_type_it_computes_in(tmp_path, dtype, told):
    facts = inspect_model(write(tmp_path / "m.onnx", *convolution(dtype=dtype)))
    node = node_of(facts, "conv")
    assert node.compute == told
    assert node.macs == 8 * 3 * 9 * 32 * 48
    assert node.weight_bytes == 8 * 3 * 9 * (4 if dtype == FLOAT else 2)
    assert facts.parameters == 8 * 3 * 9
    assert facts.by_precision()[told]["macs"] == node.macs
    assert (facts.kind, facts.opsets["ai.onnx"], facts.ir_version) == ("ONNX", 18, 10)
    assert facts.outputs[0].shape == (1, 8, 32, 48)  # the file does not say it
    is_told(facts, "by a stranger", "input   x", "[1, 3, 32, 48]")


def test_a_transposed_convolution_is_counted_where_it_multiplies(tmp_path):
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2])]
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [value("x", FLOAT, [2, 8, 10, 10])],
        [value("y", FLOAT, None)],
        [stored("w", (8, 3, 4, 4))],
    )
    assert node_of(inspect_model(path), "up").macs == 8 * 3 * 16 * 10 * 10


def quantised(tmp_path):
    """One convolution in INT8, one whose weights alone are, one in integers, one in FP32."""
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        node("DequantizeLinear", ["wq", "scale", "zero"], ["wd"]),
        node("Conv", ["xd", "wd"], ["y1"], "both", pads=[1] * 4),
        node("Conv", ["x", "wd"], ["y2"], "weights only", pads=[1] * 4),
        node("ConvInteger", ["xq", "wq"], ["y3"], "integers", pads=[1] * 4),
        node("Constant", [], ["w"], value=stored("", (8, 3, 3, 3))),
        node("Conv", ["xd", "w"], ["y4"], "data only", pads=[1] * 4),
    ]
    constants = [
        stored("scale", ()),
        stored("zero", (), np.int8),
        stored("wq", (8, 3, 3, 3), np.int8),
    ]
    outputs = [value(f"y{n}", TensorProto.INT32 if n == 3 else FLOAT, None) for n in (1, 2, 3, 4)]
    source = [value("x", FLOAT, [1, 3, 32, 48])]
    return write(tmp_path / "q.onnx", nodes, source, outputs, constants)


def test_int8_is_where_both_inputs_are_dequantised(tmp_path):
    facts = inspect_model(quantised(tmp_path))
    assert {node.name: node.compute for node in facts.nodes} == {
        "both": "INT8",
        "weights only": "FP32",
        "integers": "INT8",
        "data only": "FP32",
    }
    assert {node.name: node.weight_bytes for node in facts.nodes} == {
        "both": 216,
        "weights only": 216,
        "integers": 216,
        "data only": 864,  # in a Constant node
    }
    totals = facts.by_precision()
    assert totals["INT8"]["nodes"] == totals["FP32"]["nodes"] == 2
    assert facts.stored_bytes == {"FLOAT": 868, "INT8": 217}
    assert facts.operators["DequantizeLinear"] == 2
    is_told(facts, "operators: Conv 3", "INT8 ")


def test_open_shapes_make_macs_unknown_not_zero(tmp_path):
    facts = inspect_model(write(tmp_path / "m.onnx", *convolution(("N", 3, "H", "W"))))
    assert facts.inputs[0].shape == ("N", 3, "H", "W")
    assert node_of(facts, "conv").macs is None
    assert facts.by_precision()["FP32"]["nodes_of_unknown_macs"] == 1
    is_told(facts, "unknown", "[N, 3, H, W]", "sides of these shapes open")


def test_an_open_batch_leaves_the_macs_of_one_frame(tmp_path):
    facts = inspect_model(write(tmp_path / "m.onnx", *convolution(("N", 3, 32, 48))))
    assert node_of(facts, "conv").macs == 8 * 3 * 9 * 32 * 48


def test_an_input_without_any_shape_is_told(tmp_path):
    facts = inspect_model(write(tmp_path / "m.onnx", *convolution(None)))
    assert facts.inputs[0].shape == ("...",)
    assert node_of(facts, "conv").macs is None


def test_an_old_strangers_file_with_its_weights_among_the_inputs(tmp_path):
    nodes = [
        helper.make_node("Upsample", ["x", "scales"], ["big"], mode="nearest"),
        helper.make_node("Flatten", ["big"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y"], "dense", transB=1),
    ]
    source = [value("x", FLOAT, ["batch", 3, 4, 4]), value("w", FLOAT, [10, 192])]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    constants = [scales, stored("w", (10, 192)), stored("b", (10,))]
    path = write(tmp_path / "m.onnx", nodes, source, [value("y", FLOAT, None)], constants, 9)
    facts = inspect_model(path)
    assert [tensor.name for tensor in facts.inputs] == ["x"]
    assert node_of(facts, "dense").macs == 1920
    assert facts.opsets["ai.onnx"] == 9
    is_told(facts, "opset ai.onnx 9")


def test_weights_beside_the_file_are_counted_whether_they_are_there_or_not(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        *convolution(),
        save_as_external_data=True,
        size_threshold=0,
        location="m.bin",
    )
    facts = inspect_model(path)
    assert facts.external_bytes == (tmp_path / "m.bin").stat().st_size > 0
    assert facts.stored_bytes == {"FLOAT": 864}
    assert not facts.notes
    is_told(facts, "of weights beside it")
    (tmp_path / "m.bin").unlink()
    facts = inspect_model(path)
    assert facts.stored_bytes == {"FLOAT": 864}
    is_told(facts, "m.bin, with weights, is not beside it")


def test_thousands_of_nodes_are_told_in_a_page_and_counted_whole(tmp_path):
    nodes = []
    for number in range(3000):
        inputs = [f"t{number}", "w"] if number % 10 == 0 else [f"t{number}"]
        name = f"/a/very/long/name/as/exporters/of/strangers/write/them/{number}/conv"
        kind = "Conv" if len(inputs) == 2 else "Relu"
        pads = {"pads": [1] * 4} if kind == "Conv" else {}
        nodes.append(helper.make_node(kind, inputs, [f"t{number + 1}"], name, **pads))
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [value("t0", FLOAT, [1, 3, 8, 8])],
        [value("t3000", FLOAT, None)],
        [stored("w", (3, 3, 3, 3))],
    )
    facts = inspect_model(path)
    assert facts.operators == {"Relu": 2700, "Conv": 300}
    assert len(facts.nodes) == 300
    assert len(facts.lines()) < 100
    is_told(facts, "and 240 more with less work")


def test_operators_of_others_and_nodes_in_branches_are_told(tmp_path):
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["y"], [out])], out, [], [value(out, FLOAT, None)]
        )
        for kind, out in (("Identity", "then"), ("Relu", "else"))
    ]
    nodes, source, _, constants = convolution()
    nodes += [
        helper.make_node("If", ["sure"], ["z"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Dream", ["z"], ["out"], domain="custom"),
    ]
    constants.append(numpy_helper.from_array(np.array(True), "sure"))
    path = write(tmp_path / "m.onnx", nodes, source, [value("out", FLOAT, None)], constants)
    facts = inspect_model(path)
    assert {"If", "Identity", "Relu", "Dream"} <= set(facts.operators)
    is_told(facts, "2 nodes lie in branches and loops, whose work is not counted")


def test_every_field_of_our_metadata_is_told(tmp_path):
    contract = replace(meta("fp32", (64, 96)), quality={"l1": 1.5}, norm_stats="batch")
    facts = inspect_model(write_negative(tmp_path / "m.onnx", meta=contract))
    assert facts.meta == contract
    text = is_told(facts, "made by p2p-export", '"l1": 1.5', "frame_size_px")
    for name in facts.to_dict()["meta"]:
        assert re.search(rf"^  {name}\b", text, re.MULTILINE), name


def test_metadata_of_others_is_told(tmp_path):
    path = write(tmp_path / "m.onnx", *convolution())
    model = onnx.load(str(path))
    helper.set_model_props(model, {"stride": "32", "names": "{0: 'cat'}"})
    onnx.save(model, str(path))
    facts = inspect_model(path)
    assert facts.meta is None
    is_told(facts, "stride  32", "{0: 'cat'}")


@pytest.mark.parametrize("content", [b"# a README\n", b"", bytes(1000), b"\x80\x02}q\x00."])
def test_a_file_that_is_neither_is_told_in_one_line(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match="neither an ONNX file nor a TensorRT engine") as caught:
        inspect_model(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_or_not_there_is_told_in_one_line(tmp_path):
    path = write(tmp_path / "m.onnx", *convolution())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError):
        inspect_model(path)
    with pytest.raises(ModelError, match="no such model"):
        inspect_model(tmp_path / "none.onnx")


def test_an_operator_without_its_opset_is_told_in_one_line(tmp_path):
    path = write(tmp_path / "m.onnx", *convolution())
    model = onnx.load(str(path))
    del model.opset_import[:]
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="not a valid ONNX file") as caught:
        inspect_model(path)
    assert "\n" not in str(caught.value)


LAYERS = (
    Layer("down", "correlation", ("Half",), ("Half",)),
    Layer("up", "deconv", ("Half",), ("Half",)),
    Layer("mid", "correlation", ("Half",), ("Half",)),
    Layer("in", "kgen", ("UInt8",), ("Half",)),
)


def engine_file(folder, version=b"\x0a\x03\x00\x1a", magic=b"ftrt"):
    """The header of an engine, where trtexec looks for its version."""
    path = folder / "model.engine"
    path.write_bytes(magic + bytes(20) + version + bytes(100))
    return path


def test_an_engine_of_ours_is_told_by_the_json_beside_it(tmp_path):
    path = engine_file(tmp_path)
    contract = replace(
        meta("fp16", (64, 96)),
        engine_library="tensorrt 10.3.0",
        gpu=BUILT_AHEAD,
        layers=[layer.to_dict() for layer in LAYERS],
        build={"engine_bytes": path.stat().st_size, "seconds": 1.5},
    )
    sidecar_of(path).write_text(contract.to_json())
    facts = inspect_model(path)
    assert facts.kind == "engine of tensorrt 10.3.0.26"
    assert facts.layers == LAYERS
    assert facts.layers_by_type()[("correlation", "Half", "Half")] == 2
    text = is_told(facts, "[1, 64, 96, 3]", "precision        fp16")
    assert re.search(r"^correlation +Half +Half +2$", text, re.MULTILINE)
    assert re.search(r"^all +4$", text, re.MULTILINE)


def test_an_engine_of_ours_needs_no_onnx(tmp_path):
    path = engine_file(tmp_path)
    sidecar_of(path).write_text(meta("fp16").to_json())
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'google'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from export.inspect_model import inspect_model\n"
        f"sys.stdout.write('\\n'.join(inspect_model(Path({str(path)!r})).lines()))\n"
        f"sys.stdout.write(str(inspect_model(Path({str(write_negative(tmp_path / 'm.onnx'))!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "precision" in done.stdout, done.stderr
    assert "need the package onnx" in done.stdout


@pytest.mark.parametrize("magic", [b"ftrt", b"vtrt"])
def test_a_strangers_engine_without_a_gpu_says_what_it_needs(tmp_path, monkeypatch, magic):
    monkeypatch.setattr(machine, "gpus", lambda: ([], "no NVIDIA driver"))
    facts = inspect_model(engine_file(tmp_path, magic=magic))
    library = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}[magic]
    (note,) = facts.notes
    assert f"can be read by {library} 10.3.0.26" in note
    assert "here is no GPU (no NVIDIA driver)" in note
    is_told(facts)


def test_an_engine_that_tensorrt_does_not_load_says_why(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    monkeypatch.setattr(machine, "gpus", lambda: ([machine.Gpu("Orin", "8.7")], ""))
    (note,) = inspect_model(engine_file(tmp_path, magic=b"vtrt")).notes
    assert "here does not load it" in note
    monkeypatch.setattr(engine_log.importlib, "import_module", lambda _name: missing())
    (note,) = inspect_model(engine_file(tmp_path)).notes
    assert "here is no tensorrt" in note


def missing():
    raise ImportError


def test_an_engine_with_a_damaged_json_is_told_with_the_reason(tmp_path):
    path = engine_file(tmp_path)
    sidecar_of(path).write_text("{")
    facts = inspect_model(path)
    assert facts.meta is None
    is_told(facts, "is damaged")


class Inspector:
    """Stands for a GPU with TensorRT: an engine that is loaded, and what its inspector says."""

    def __init__(self, told: str) -> None:
        self.told = told
        self.num_io_tensors = 2
        self.shapes = {"pixels": (-1, 3, 64, 64), "labels": (1, 10)}

    def get_tensor_name(self, number):
        return list(self.shapes)[number]

    def get_tensor_shape(self, name):
        return self.shapes[name]

    def get_tensor_dtype(self, _name):
        return "DataType.HALF"

    def get_tensor_mode(self, name):
        return {"pixels": "input", "labels": "output"}[name]

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, _form):
        return self.told


def with_inspector(monkeypatch, told):
    class Trt:
        class ILogger:
            ERROR, WARNING = 1, 2

        class TensorIOMode:
            INPUT = "input"

        class LayerInformationFormat:
            JSON = "json"

        class Runtime:
            def __init__(self, _logger):
                pass

            def deserialize_cuda_engine(self, _data):
                return Inspector(told)

    monkeypatch.setattr(machine, "gpus", lambda: ([machine.Gpu("Orin", "8.7")], ""))
    monkeypatch.setattr(engine_log.importlib, "import_module", lambda _name: Trt)


def test_a_strangers_engine_is_asked_where_there_is_a_gpu(tmp_path, monkeypatch):
    tensors = [{"Name": "x", "Datatype": "Half", "Format": "linear"}]
    layer = {"Name": "a", "LayerType": "CaskConvolution", "Inputs": tensors, "Outputs": tensors}
    with_inspector(monkeypatch, json.dumps({"Layers": [layer], "I/O Tensors": []}))
    facts = inspect_model(engine_file(tmp_path))
    assert facts.inputs[0].shape == ("?", 3, 64, 64)
    assert (facts.outputs[0].name, facts.outputs[0].dtype) == ("labels", "HALF")
    assert facts.layers == (Layer("a", "CaskConvolution", ("Half",), ("Half",)),)
    is_told(facts, "[?, 3, 64, 64]", "CaskConvolution")


def test_an_engine_that_tells_nothing_of_its_layers_tells_its_tensors(tmp_path, monkeypatch):
    with_inspector(monkeypatch, "")
    facts = inspect_model(engine_file(tmp_path))
    assert facts.layers == ()
    is_told(facts, "labels")
