"""`p2p-export` and `p2p-eval` as they are typed, with good and with bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from made_runs import write_run
from onnx import TensorProto, helper
from onnx_models import write_negative
from pairs import picture, write_side_by_side

import export.to_tensorrt as to_tensorrt
from export.cli import evaluate, export
from runtime import Translator
from runtime.artifact import meta_of_engine, meta_of_onnx
from trainer.config import GeneratorConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", GeneratorConfig("unet_256", ngf=4))


def typed(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(command, *arguments) -> str:
    result = typed(command, *arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    return lines[0]


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    result = typed(export, run_folder, "--fp16", "--out", out)
    assert result.exit_code == 0, result.output
    return out


def test_fp16_leaves_the_promised_files(exported):
    names = {path.name for path in exported.iterdir()}
    assert names == {
        "model.onnx",
        "model.fp16.onnx",
        "model.fp16.engine",
        "model.fp16.engine.json",
        "parity.json",
        "parity.html",
    }


def test_parity_json_has_a_row_for_every_artifact(exported):
    report = json.loads((exported / "parity.json").read_text())
    rows = {row["file"]: row for row in report["artifacts"]}
    assert report["images"] == 20
    assert rows["model.onnx"]["passed"] is True
    assert rows["model.onnx"]["max_abs_diff"] <= 1
    assert rows["model.fp16.onnx"]["passed"] is True
    assert rows["model.fp16.onnx"]["psnr_db"] >= 45
    assert rows["model.fp16.engine"]["passed"] is None  # no GPU to run it on, and so it says


def test_parity_page_shows_every_picture_inline(exported):
    page = (exported / "parity.html").read_text()
    assert page.count("<img ") == 6 * 6  # six pictures: input, reference, and two for each ONNX
    assert "http" not in page
    assert "The worst picture" in page


def test_measured_parity_travels_in_the_contract(exported):
    contract = meta_of_onnx(exported / "model.fp16.onnx")
    assert contract.parity["images"] == 20
    assert contract.parity["psnr_db"] >= 45
    assert contract.quality == {"l1": 1.0, "psnr": 2.0, "ssim": 0.3}
    assert contract.generator == "unet_256"
    assert meta_of_engine(exported / "model.fp16.engine").precision == "fp16"


def test_an_onnx_of_ours_gets_its_engine_beside_it(exported):
    result = typed(export, exported / "model.onnx")
    assert result.exit_code == 0, result.output
    engine = exported / "model.engine"
    assert meta_of_engine(engine).precision == "fp32"
    assert f"wrote {engine}" in result.output
    assert "wrote " + str(exported / "model.onnx") not in result.output
    engine.unlink()
    (exported / "model.engine.json").unlink()


def test_without_arguments_the_newest_run_is_exported(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "older", GeneratorConfig("unet_256", ngf=2))
    write_run(tmp_path / "runs" / "newer", GeneratorConfig("unet_256", ngf=2))
    monkeypatch.chdir(tmp_path)
    assert typed(export, "--no-engine").exit_code == 0
    assert (tmp_path / "runs" / "newer" / "model.onnx").exists()
    assert not (tmp_path / "runs" / "older" / "model.onnx").exists()


def test_size_of_the_frame_can_be_chosen(run_folder, tmp_path):
    result = typed(export, run_folder, "--out", tmp_path, "--imgsz", "256x512", "--no-engine")
    assert result.exit_code == 0, result.output
    with Translator.load(tmp_path / "model.onnx") as translator:
        assert translator.meta.frame_size_px == (256, 512)
    assert "multiples of 256" in refused(export, run_folder, "--imgsz", "480x640")


def test_gate_looks_at_the_input_half_of_side_by_side_pairs(run_folder, tmp_path):
    images = write_side_by_side(tmp_path / "pairs", 3, 64, 64)
    out = tmp_path / "out"
    result = typed(export, run_folder, "--out", out, "--images", images, "--no-engine")
    assert result.exit_code == 0, result.output
    report = json.loads((out / "parity.json").read_text())
    assert report["images"] == 3
    assert "left half" in report["images_from"]


def test_without_tensorrt_the_onnx_is_made_and_the_package_named(
    run_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(to_tensorrt, "LIBRARIES", ("tensorrt_that_is_not_here",))
    line = refused(export, run_folder, "--fp16", "--out", tmp_path)
    assert "pip install 'pix2pix-edge[rtx]'" in line
    assert (tmp_path / "model.onnx").exists()
    assert (tmp_path / "model.fp16.onnx").exists()
    plain = typed(export, run_folder, "--out", tmp_path / "plain")
    assert plain.exit_code == 0
    assert "no engine:" in plain.output


def write_float_model(path, shape=(1, 3, 64, 64), dtype=TensorProto.FLOAT, inputs=1):
    """tanh of the input: RGB, -1 to 1, as generators are exported by hand."""
    names = [f"x{i}" for i in range(inputs)]
    nodes = [helper.make_node("Tanh", [names[0]], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name in names],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 3, 64, 64), TensorProto.FLOAT),
        ((1, 64, 64, 3), TensorProto.FLOAT),
        ((1, 3, 64, 64), TensorProto.FLOAT16),
        (("n", 3, "h", "w"), TensorProto.FLOAT),
    ],
    ids=["NCHW", "NHWC", "FP16", "any size"],
)
def test_a_strangers_image_model_is_wrapped_and_gated(tmp_path, shape, dtype):
    path = write_float_model(tmp_path / "theirs.onnx", shape, dtype)
    out = tmp_path / "out"
    size = ["--imgsz", "64"] if "h" in shape else []
    result = typed(export, path, "--out", out, *size)
    assert result.exit_code == 0, result.output
    wrapped = out / ("model.fp16.onnx" if dtype == TensorProto.FLOAT16 else "model.onnx")
    frame = picture(3)
    with Translator.load(wrapped) as translator:
        drawn = translator(frame)
    expected = np.rint(np.tanh(frame / 127.5 - 1) * 127.5 + 127.5)
    assert np.abs(drawn - expected).max() <= 1


def test_value_range_and_colour_order_of_a_stranger_are_kept(tmp_path):
    path = write_float_model(tmp_path / "theirs.onnx")
    result = typed(
        export,
        path,
        "--out",
        tmp_path / "out",
        "--value-range",
        "0..1",
        "--color-order",
        "BGR",
        "--no-engine",
    )
    assert result.exit_code == 0, result.output
    frame = picture(3)
    with Translator.load(tmp_path / "out" / "model.onnx") as translator:
        drawn = translator(frame)
    assert np.abs(drawn - np.rint(np.tanh(frame / 255) * 255)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"shape": (1, 1, 64, 64)}, r"x0 float \[1, 1, 64, 64\]"),
        ({"shape": (1, 3, 64)}, r"x0 float \[1, 3, 64\]"),
        ({"dtype": TensorProto.DOUBLE}, "x0 double"),
        ({"inputs": 2}, "x0 float .*, x1 float"),
        ({"shape": ("n", 3, "h", "w")}, "--imgsz"),
    ],
)
def test_an_onnx_that_is_no_image_model_is_told_why(tmp_path, settings, told):
    path = write_float_model(tmp_path / "theirs.onnx", **settings)
    assert re.search(told, refused(export, path, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_bad_sources_are_told_in_one_line(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "p2p-train" in refused(export)
    assert "no such checkpoint" in refused(export, tmp_path / "nothing.safetensors")
    assert "no such model" in refused(export, tmp_path / "nothing.onnx")
    (tmp_path / "text.safetensors").write_text("hello")
    assert "not a checkpoint" in refused(export, tmp_path / "text.safetensors")
    (tmp_path / "text.onnx").write_text("hello")
    assert "not an ONNX file" in refused(export, tmp_path / "text.onnx")
    assert "no such folder" in refused(export, run_folder, "--images", tmp_path / "none")
    write_negative(tmp_path / "ours.onnx", (64, 64))
    assert "whose weights are not FP16" in refused(export, tmp_path / "ours.onnx", "--fp16")


def test_a_full_disk_leaves_nothing_half_written(run_folder, tmp_path):
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from export.cli import export\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.argv = ['p2p-export', {str(run_folder)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "export()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.onnx"))


# ------------------------------------------------------------------------------------ p2p-eval


def test_eval_gives_three_rows_and_the_same_for_checkpoint_and_onnx(
    run_folder, exported, tmp_path
):
    data = write_side_by_side(tmp_path / "pairs", 4, 256, 256)
    rows = {}
    for model in (run_folder, exported / "model.onnx"):
        file = tmp_path / "eval.json"
        result = typed(evaluate, model, data, "--json", file)
        assert result.exit_code == 0, result.output
        rows[model] = json.loads(file.read_text())
    by_torch, by_onnx = rows.values()
    assert set(by_torch) == {"model", "identity", "mean_target"}
    for measure in ("l1", "psnr", "ssim"):
        assert by_onnx["model"][measure] == pytest.approx(by_torch["model"][measure], abs=0.02)
    # B is 255 - A: handing A back is off by |2A - 255| on average.
    pairs = [picture(n, 256, 256).astype(float) for n in range(4)]
    expected = np.mean([np.abs(2 * a - 255).mean() for a in pairs])
    assert by_torch["identity"]["l1"] == pytest.approx(expected, rel=1e-6)
    mean = np.rint(np.mean([255 - a for a in pairs], axis=0))
    expected = np.mean([np.abs(mean - (255 - a)).mean() for a in pairs])
    assert by_torch["mean_target"]["l1"] == pytest.approx(expected, rel=1e-6)


def test_eval_refuses_what_is_not_there(run_folder, tmp_path):
    assert "no such folder" in refused(evaluate, run_folder, tmp_path / "none")
    assert "no such checkpoint" in refused(evaluate, tmp_path / "none", tmp_path)
