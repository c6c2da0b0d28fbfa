"""Real engines, built by the real TensorRT-RTX builder, which needs no GPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import onnx
import pytest
from made_runs import lively_generator
from onnx_models import write_negative
from test_export_onnx import meta

import export.to_tensorrt as to_tensorrt
from export.to_onnx import onnx_from_generator
from export.to_tensorrt import engine_from_onnx, layers_in_log
from runtime.artifact import meta_of_engine, meta_of_onnx, sha256_of
from runtime.errors import EngineError, ModelError
from trainer.config import GeneratorConfig

rtx = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx wheel for this platform")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """FP32 and FP16 engines of the whole U-Net 256, 54 M parameters."""
    folder = tmp_path_factory.mktemp("engines")
    generator = lively_generator(GeneratorConfig("unet_256", ngf=64))
    engines = {}
    for precision in ("fp32", "fp16"):
        onnx_path = folder / f"{precision}.onnx"
        onnx_from_generator(generator, onnx_path, meta(precision))
        engines[precision] = engine_from_onnx(onnx_path, folder / f"{precision}.engine")
    return engines


@pytest.mark.slow
def test_fp16_engine_is_about_half_the_bytes(built):
    ratio = built["fp16"].size_bytes / built["fp32"].size_bytes
    assert ratio == pytest.approx(0.5, abs=0.05)
    assert built["fp16"].size_bytes == built["fp16"].path.stat().st_size > 100e6


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "datatype"), [("fp32", "Float"), ("fp16", "Half")])
def test_convolutions_of_the_built_engine_compute_in_the_asked_type(built, precision, datatype):
    layers = built[precision].layers
    convolutions = [layer for layer in layers if layer.kind in ("correlation", "deconv")]
    assert len(convolutions) >= 15  # of 16: the last one may be fused into the way out
    for layer in convolutions:
        assert set(layer.input_types) == {datatype}, layer
    inside = {kind for layer in layers for kind in layer.output_types} - {"UInt8"}
    assert inside == {datatype}


@pytest.mark.slow
def test_contract_lies_beside_the_engine(built):
    engine = built["fp16"]
    contract = meta_of_engine(engine.path)
    assert contract == engine.meta
    assert contract.precision == "fp16"
    assert contract.engine_library == f"tensorrt_rtx {rtx.__version__}"
    assert contract.onnx_sha256 == sha256_of(engine.path.with_suffix(".onnx"))
    assert not list(engine.path.parent.glob(".*part*"))


@pytest.mark.slow
def test_frames_of_camera_size_build_too(tmp_path):
    generator = lively_generator(GeneratorConfig("unet_256", ngf=4))
    path = tmp_path / "wide.onnx"
    onnx_from_generator(generator, path, meta("fp16", (512, 768)))
    assert engine_from_onnx(path, tmp_path / "wide.engine").meta.frame_size_px == (512, 768)


def test_without_tensorrt_the_line_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(to_tensorrt, "LIBRARIES", ("tensorrt_that_is_not_here",))
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    with pytest.raises(EngineError, match=re.escape("pip install 'pix2pix-edge[rtx]'")):
        engine_from_onnx(path, tmp_path / "model.engine")
    assert not (tmp_path / "model.engine").exists()


def test_an_onnx_without_contract_is_refused(tmp_path):
    with pytest.raises(ModelError, match="p2p-export"):
        engine_from_onnx(write_negative(tmp_path / "model.onnx"), tmp_path / "model.engine")


def test_an_onnx_that_the_builder_refuses_gives_its_reason_and_no_file(tmp_path):
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    model = onnx.load(str(path))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, str(path))
    with pytest.raises(EngineError, match="NoSuchOperator"):
        engine_from_onnx(path, tmp_path / "model.engine")
    assert not (tmp_path / "model.engine").exists()


def test_a_full_disk_leaves_no_engine(tmp_path, monkeypatch):
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from export.to_tensorrt import engine_from_onnx\n"
        "from runtime.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"try: engine_from_onnx(Path({str(path)!r}), Path({str(tmp_path / 'm.engine')!r}))\n"
        "except UserError as error: sys.stdout.write(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "disk is full" in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


def test_engine_building_needs_neither_torch_nor_onnx(tmp_path):
    path = write_negative(tmp_path / "model.onnx", meta=meta("fp32", (64, 96)))
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'safetensors', 'torchmetrics'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['p2p-export', {str(path)!r}]\n"
        "from export.cli import export\n"
        "export()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert meta_of_engine(tmp_path / "model.engine").onnx_sha256 == sha256_of(path)
    assert meta_of_onnx(path) is not None
    assert json.loads((tmp_path / "model.engine.json").read_text())["schema"] == 1


def test_layers_are_read_from_both_forms_of_the_log():
    rtx_line = (
        "Name: conv, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,3,8,8], "
        "Datatype: Half, Format: (NHWC) }], Constants: [ { Name: w, Datatype: Float }], "
        "Outputs: [ { Name: y, Dimensions: [1,8,4,4], Datatype: Int8, Format: (NHWC) }], "
        "TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv]"
    )
    (layer,) = layers_in_log(f"Engine Layer Information:\n{rtx_line}\nI/O Tensors:\n")
    assert (layer.kind, layer.input_types, layer.output_types) == (
        "correlation",
        ("Half",),
        ("Int8",),
    )
