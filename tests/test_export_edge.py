"""INT8 of the edge generators: bytes from the frame to the picture, and nothing moved in vain."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_runs import lively_generator
from test_export_int8 import names, with_ranges, worst
from test_export_onnx import meta
from test_export_subpixel import SIDES_PX, exported, scenes
from test_export_subpixel import drawing as plain_drawing
from torch import nn

from export.frame_bytes import drawn_bytes, frame_values
from export.graph import Graph, drawn_by
from export.int8_search import written_for
from export.quantize import CPU, TENSORRT, quantizable, quantized
from export.to_onnx import save_with_meta
from export.to_tensorrt import engine_from_onnx
from export.verify import Difference
from runtime import Translator
from trainer.config import GeneratorConfig

SIDE_PX = 64
NAMES = ("edge_unet_s", "relight_s", "pyramid")
REWRITTEN = {"edge_unet_s": 3, "relight_s": 1, "pyramid": 1, "unet_128": 2, "resnet_6blocks": 1}
"""Levels that a picture may be off once its graph is rewritten. 1 is rounding. More where the
first convolution reads the bytes of the frame and pads them with zeros: those are then half a
level brighter than they were, all along the border, and random weights carry that inside."""
INT8_PSNR_DB = {"edge_unet_s": 31.0, "relight_s": 27.0, "pyramid": 30.5}
"""Of random weights and eight channels, which average little of the rounding out; a trained
relight of full width is past 38 dB (docs/export.md)."""


@cache
def drawing(name):
    """The FP32 graph of a generator with weights that draw something."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator = lively_generator(GeneratorConfig(name, ngf=8))
        return exported(generator, meta(size_px=(SIDE_PX, SIDE_PX)))
    finally:
        torch.set_num_threads(threads)


@cache
def frames():
    return scenes(3, SIDE_PX)


@cache
def in_int8(name, form, keep=()):
    return quantized(*with_ranges(drawing(name), frames(), form), form, keep)


def optimised(model, path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_rewritten_for_the_cpu_it_draws_the_same_picture(name):
    written = written_for(drawing(name), CPU)
    assert "DepthToSpace" not in {node.op_type for node in written.graph.node}
    assert_alike(drawing(name), written, frames(), REWRITTEN[name])


def assert_alike(model, written, pictures, levels):
    for before, after in zip(drawn_by(model, pictures), drawn_by(written, pictures), strict=True):
        assert before.std() > 10
        difference = np.abs(before.astype(int) - after)
        assert difference.max() <= levels
        assert difference.mean() < (0.3 if levels > 2 else 0.05)


@pytest.mark.parametrize("name", SIDES_PX)
def test_the_bytes_of_the_frame_are_found_at_both_ends(name):
    model = plain_drawing(name)
    written = written_for(model, CPU)
    assert frame_values(Graph(written)) is not None
    assert drawn_bytes(Graph(written), Graph(written).nodes[-1]) is not None
    assert frame_values(Graph(model)) is None
    assert drawn_bytes(Graph(model), Graph(model).nodes[-1]) is None
    assert_alike(model, written, scenes(2, SIDES_PX[name]), REWRITTEN[name])


def test_an_edge_unet_reads_the_bytes_of_the_frame_and_moves_only_depth(tmp_path):
    made = optimised(in_int8("edge_unet_s", CPU), tmp_path / "optimised.onnx")
    graph = Graph(made)
    readers = [node.op_type for node in graph.consumers["frames"]]
    assert sorted(readers) == ["Cast", "Reshape"], "for the frame itself, and for the stem"
    perms = [list(n.attribute[0].ints) for n in made.graph.node if n.op_type == "Transpose"]
    # Space-to-depth, three times up, and the head.
    assert [len(perm) for perm in perms].count(5) == 5


@pytest.mark.parametrize("name", NAMES)
def test_the_trunk_of_a_retouching_generator_is_in_bytes(name, tmp_path):
    made = optimised(in_int8(name, CPU), tmp_path / "optimised.onnx")
    found = Counter(node.op_type for node in made.graph.node)
    graph = Graph(drawing(name))
    assert found["QLinearConv"] == len(quantizable(graph)) >= 16
    assert found["Conv"] == len(graph.convolutions()) - len(quantizable(graph))
    assert not {"FusedConv", "DepthToSpace"} & set(found)
    assert found["QLinearAdd"] >= 6


def test_a_convolution_of_a_few_products_stays_in_fp32():
    class Few(nn.Module):
        """Two colours of three, then many products."""

        def __init__(self):
            super().__init__()
            self.few, self.many = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x):
            return self.many(torch.relu(self.few(x)))

    graph = Graph(exported(Few().eval(), meta(size_px=(SIDE_PX, SIDE_PX))))
    left = [node for node in graph.convolutions() if node not in quantizable(graph)]
    assert [graph.types[node.input[1]].shape for node in left] == [(2, 3, 1, 1)]


@pytest.mark.parametrize("form", [CPU, TENSORRT], ids=["cpu", "tensorrt"])
@pytest.mark.parametrize("name", NAMES)
def test_int8_draws_its_picture(name, form):
    psnr_db, ssim = worst(in_int8(name, form), drawing(name), frames())
    assert psnr_db > INT8_PSNR_DB[name]
    # Random weights; relight's light is soft, and on flat areas SSIM weighs the same error more.
    assert ssim > (0.94 if name == "relight_s" else 0.96)


def test_kept_convolutions_at_both_ends_read_and_draw_in_fp32():
    model, pictures = plain_drawing("unet_128"), scenes(3, 128)
    written, ranges = with_ranges(model, pictures, CPU)
    ends = (names(written)[0], names(written)[-1])
    made = quantized(written, ranges, CPU, ends)
    graph = Graph(made)
    kept = [node for node in made.graph.node if node.name in ends]
    assert [node.input[1] in graph.weights for node in kept] == [True, True]
    assert worst(made, model, pictures) > worst(quantized(written, ranges, CPU), model, pictures)


@pytest.mark.parametrize("name", NAMES)
def test_tensorrt_computes_every_convolution_in_int8(name, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")
    path = tmp_path / "int8.onnx"
    save_with_meta(in_int8(name, TENSORRT), path, meta(size_px=(SIDE_PX, SIDE_PX)))
    built = engine_from_onnx(path, tmp_path / "int8.engine")
    convolutions = [layer for layer in built.layers if layer.kind == "correlation"]
    graph = Graph(drawing(name))
    in_int8_there = [layer for layer in convolutions if layer.input_types[0] == "Int8"]
    assert len(in_int8_there) == len(quantizable(graph)) == len(graph.convolutions())


@pytest.mark.parametrize("name", ["edge_unet_s", "relight_s"])
def test_openvino_draws_the_same_of_both_precisions(name, tmp_path):
    pytest.importorskip("openvino", reason="no OpenVINO here")
    # What the gate asks of INT8: the two round sums of quantised tensors differently.
    for model, psnr_db in ((drawing(name), 60.0), (in_int8(name, CPU), 35.0)):
        path = tmp_path / "model.onnx"
        save_with_meta(model, path, meta(size_px=(SIDE_PX, SIDE_PX)))
        drawn = []
        for engine in ("onnxruntime", "openvino"):
            with Translator.load(path, engine=engine, threads=1) as translator:
                drawn.append([translator(frame).copy() for frame in frames()])
        for one, other in zip(*drawn, strict=True):
            assert one.std() > 10
            assert Difference.between(one, other).psnr_db > psnr_db
