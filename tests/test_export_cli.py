"""`p2p-export` as it is typed, with good and with bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import escape

import numpy as np
import onnx
import pytest
from commands import done, refused, typed
from made_runs import write_run
from onnx import TensorProto, helper, numpy_helper
from onnx_models import write_negative
from pairs import picture, write_side_by_side

import export.to_tensorrt as to_tensorrt
from export.checkpoints import open_checkpoint
from export.cli import export
from export.graph import Graph, load_model
from export.subjects import torch_draws
from runtime import Translator
from runtime.artifact import meta_of_engine, meta_of_onnx, sidecar_of
from trainer.config import GeneratorConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SIDE_PX = 128
QUICK = ("--calibration-method", "minmax")
"""The other ways to choose ranges have tests of their own."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Thirty pairs, of which training holds out three."""
    return write_side_by_side(tmp_path_factory.mktemp("data") / "pairs", 30)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """As few pictures as INT8 is calibrated on."""
    return write_side_by_side(tmp_path_factory.mktemp("data") / "few", 8)


@pytest.fixture(scope="module")
def run_folder(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return write_run(folder, GeneratorConfig("unet_128", ngf=4), str(pairs))


@pytest.fixture(scope="module")
def resnet_folder(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "resnet"
    return write_run(folder, GeneratorConfig("resnet_6blocks", ngf=2, norm="batch"), str(pairs))


@pytest.fixture(scope="module")
def complete(run_folder, tmp_path_factory):
    """Everything that one command makes of a run, and what it said."""
    out = tmp_path_factory.mktemp("out")
    return out, done(export, run_folder, "--fp16", "--int8", *QUICK, "--out", out)


@pytest.fixture(scope="module")
def exported(complete):
    return complete[0]


@pytest.fixture(scope="module")
def report(exported):
    return json.loads((exported / "parity.json").read_text())


@pytest.fixture
def ours(exported, tmp_path):
    """A copy of model.onnx alone in a folder."""
    path = tmp_path / "mine" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes((exported / "model.onnx").read_bytes())
    return path


def names_in(folder):
    return {path.name for path in folder.iterdir()}


PROMISED = {
    "model.onnx",
    "model.fp16.onnx",
    "model.fp16.engine",
    "model.fp16.engine.json",
    "model.int8.onnx",
    "model.int8.cpu.onnx",
    "model.int8.engine",
    "model.int8.engine.json",
    "parity.json",
    "parity.html",
}


def kinds_in(path):
    return {node.op_type for node in onnx.load(str(path)).graph.node}


def torch_picture(run_folder, frame, *sizes_px):
    checkpoint = open_checkpoint(run_folder)
    return torch_draws(checkpoint, checkpoint.generator, *sizes_px)(frame).astype(int)


# ------------------------------------------------------------------------ what one command makes


def test_fp16_and_int8_leave_the_promised_files(exported):
    assert names_in(exported) == PROMISED


def test_every_artifact_has_its_row(report):
    rows = {row["file"]: row for row in report["artifacts"]}
    assert report["images"] == 3
    assert "held-out inputs of" in report["images_from"]
    assert "the PyTorch generator in FP32" in report["reference"]
    goals = {
        "model.onnx": (50, 0, 1),
        "model.fp16.onnx": (45, 0, 3),
        "model.int8.onnx": (35, 0.97, 255),
        "model.int8.cpu.onnx": (35, 0.97, 255),
    }
    for file, (psnr_db, ssim, max_abs_diff) in goals.items():
        row = rows.pop(file)
        assert row["passed"] is row["repeats"] is True
        assert (row["min_psnr_db"], row["min_ssim"]) == (psnr_db, ssim)
        assert min(row["psnr_db"], row["camera_psnr_db"]) >= psnr_db
        assert row["ssim"] >= ssim
        assert row["max_abs_diff"] <= max_abs_diff
        assert row["worst_image"] in {"009", "019", "029"}
    assert set(rows) == {"model.fp16.engine", "model.int8.engine"}
    for row in rows.values():
        assert row["passed"] is row["psnr_db"] is None  # no GPU to run it on
        assert "needs an NVIDIA GPU" in row["engine"]


def test_contract_says_how_each_file_was_made(exported):
    found = {path.name: meta_of_onnx(path) for path in exported.glob("*.onnx")}
    for meta in found.values():
        assert meta.verified
        assert meta.norm_stats == "running"
        assert meta.parity["images"] == 3
        assert meta.quality == {"l1": 1.0, "psnr": 2.0, "ssim": 0.3}
        assert (meta.generator, meta.batch, meta.dynamic) == ("unet_128", 1, False)
    told = {name: (meta.precision, meta.target, meta.upsample) for name, meta in found.items()}
    assert told == {
        "model.onnx": ("fp32", None, "keep"),
        "model.fp16.onnx": ("fp16", None, "keep"),
        "model.int8.onnx": ("int8", "tensorrt", "subpixel"),
        "model.int8.cpu.onnx": ("int8", "cpu", "subpixel"),
    }
    assert found["model.onnx"].kept is None
    for name, precision in (("model.int8.onnx", "fp16"), ("model.int8.cpu.onnx", "fp32")):
        kept = found[name].kept or {precision: []}
        assert set(kept) == {precision}
        quantised = [
            node
            for node in Graph(load_model(exported / name)).nodes
            if node.op_type == "Conv" and node.name not in kept[precision]
        ]
        assert quantised
        assert all("dequantized" in node.input[1] for node in quantised)


def test_engine_contract_names_its_onnx_and_its_builder(exported):
    for precision in ("fp16", "int8"):
        meta = meta_of_engine(exported / f"model.{precision}.engine")
        assert meta.precision == precision
        assert meta.engine_library.startswith("tensorrt")
        assert meta.layers
        assert (
            meta.build["engine_bytes"] == (exported / f"model.{precision}.engine").stat().st_size
        )


def test_tables_tell_ranges_layers_engines_and_speed_in_both_reports(exported, report):
    page = (exported / "parity.html").read_text()
    tables = {table["title"]: table for table in report["tables"]}
    for target in ("tensorrt", "cpu"):
        methods = tables[f"INT8 for {target}: how the ranges are chosen"]
        assert [row[0] for row in methods["rows"]] == ["minmax"]
        layers = tables[f"INT8 for {target}: layer by layer"]
        assert len(layers["rows"]) == 14  # seven convolutions down, seven up
        harm = [float(row[layers["columns"].index("PSNR, dB")]) for row in layers["rows"]]
        assert harm == sorted(harm), "the most harmful first"
        shares = [row[layers["columns"].index("share")] for row in layers["rows"]]
        assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=1)
    assert tables["Layers of model.fp16.engine"]["rows"]
    assert "Int8" in json.dumps(tables["Layers of model.int8.engine"])
    speed = tables["Time of a frame on this machine"]
    assert [row[0] for row in speed["rows"]] == [
        "model.onnx",
        "model.fp16.onnx",
        "model.int8.cpu.onnx",
    ]
    for title in tables:
        assert f"<h2>{escape(title)}</h2>" in page
    for note in report["notes"]:
        assert escape(note) in page


def test_parity_page_shows_every_picture_inline(exported):
    page = (exported / "parity.html").read_text()
    assert page.count("<img ") == 3 * (2 + 2 * 4)  # input, reference, and two for each ONNX
    assert "://" not in page
    assert "The worst picture" in page


def test_what_was_chosen_and_why_is_said(complete):
    out, said = complete
    assert re.search(r"unet_128, ngf 4, batch norm, 10 steps on .*pairs", said)
    assert re.search(r"BatchNorm: running .*L1 \d+\.\d grey levels against .* on 3 pairs", said)
    assert "INT8 is calibrated on 27: training inputs of" in said
    assert re.search(r"a frame here takes model.onnx \d+\.\d ms, model.fp16.onnx", said)
    assert f"report {out / 'parity.html'}" in said
    fastest = re.search(r": (\S+) is the fastest", said)[1]
    assert f"next   p2p-live {out / fastest} --source 0" in said


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.fp16.onnx", "model.int8.onnx", "model.int8.cpu.onnx"]
)
def test_dropout_is_off_and_the_picture_is_that_of_pytorch(exported, run_folder, name):
    frame = picture(77, SIDE_PX, SIDE_PX)
    expected = torch_picture(run_folder, frame)
    assert expected.std() > 20, "a plain picture would prove nothing"
    with Translator.load(exported / name) as translator:
        first, second = translator(frame), translator(frame)
    np.testing.assert_array_equal(first, second)
    squared = np.mean((first - expected) ** 2.0)
    assert 10 * np.log10(255**2 / max(squared, 1e-9)) > (30 if "int8" in name else 45)


# ------------------------------------------------------------------------------------- the gate


def test_what_fails_the_gate_is_not_written_and_an_older_one_stays(run_folder, few, tmp_path):
    (tmp_path / "model.int8.onnx").write_text("the older export")
    asked = ("--min-psnr", "95", "--target", "tensorrt", "--calibration", few)
    result = typed(export, run_folder, "--int8", *QUICK, *asked, "--out", tmp_path)
    assert result.exit_code == 1, result.output
    assert "model.int8.onnx: DOES NOT draw the same picture" in result.output
    assert "the gate failed: what did not pass was not written" in result.output
    assert "next " not in result.output
    assert (tmp_path / "model.int8.onnx").read_text() == "the older export"
    assert names_in(tmp_path) == {
        "model.onnx",
        "model.int8.onnx",
        "parity.json",
        "parity.html",
    }
    rows = json.loads((tmp_path / "parity.json").read_text())["artifacts"]
    assert [(row["file"], row["passed"], row["min_psnr_db"]) for row in rows] == [
        ("model.onnx", True, 50.0),
        ("model.int8.onnx", False, 95.0),
    ]


def test_without_the_gate_the_files_say_so_and_an_older_report_stays(run_folder, tmp_path):
    (tmp_path / "parity.json").write_text("the older report")
    said = done(export, run_folder, "--no-verify", "--out", tmp_path)
    assert "draws the same picture" not in said
    assert "report" not in said
    assert names_in(tmp_path) == {
        "model.onnx",
        "model.engine",
        "model.engine.json",
        "parity.json",
    }
    assert (tmp_path / "parity.json").read_text() == "the older report"
    for meta in (meta_of_onnx(tmp_path / "model.onnx"), meta_of_engine(tmp_path / "model.engine")):
        assert not meta.verified
        assert meta.parity is None
    with Translator.load(tmp_path / "model.onnx") as translator:
        assert "not verified" in translator.description


def test_levels_that_fp16_may_be_off_can_be_chosen(ours, few):
    command = (ours, "--fp16", "--no-engine", "--images", few, "--max-diff")
    result = typed(export, *command, "0")
    assert result.exit_code == 1
    assert "at most 0 levels off anywhere" in result.output
    assert not (ours.parent / "model.fp16.onnx").exists()
    assert "at most 9 levels off anywhere" in done(export, *command, "9")
    assert "add --fp16" in refused(export, ours, "--max-diff", "9")


@pytest.mark.parametrize(
    ("target", "written"), [("cpu", "model.int8.cpu.onnx"), ("tensorrt", "model.int8.onnx")]
)
def test_one_form_of_int8_alone(ours, few, target, written):
    said = done(
        export, ours, "--int8", "--target", target, *QUICK, "--calibration", few, "--images", few
    )
    engine = {"model.int8.engine", "model.int8.engine.json"} if target == "tensorrt" else set()
    assert names_in(ours.parent) == {"model.onnx", written, "parity.json", "parity.html"} | engine
    assert "INT8 is calibrated on 8" in said
    assert f"wrote {ours}" not in said.splitlines()


# ---------------------------------------------------------------------- sizes, batches, operators


def test_sides_batch_and_opset_can_be_chosen(run_folder, tmp_path):
    options = ("--imgsz", "256x128", "--batch", "3", "--opset", "20", "--no-engine")
    said = done(export, run_folder, *options, "--out", tmp_path)
    assert "next " not in said  # p2p-live takes one frame at a time
    path = tmp_path / "model.onnx"
    meta = meta_of_onnx(path)
    assert (meta.frame_size_px, meta.network_size_px) == ((256, 128), (256, 128))
    assert (meta.batch, meta.opset) == (3, 20)
    assert onnx.load(str(path)).opset_import[0].version == 20
    frames = [picture(seed, 256, 128) for seed in range(4)]
    with Translator.load(path) as translator:
        drawn = translator.batch(frames)
    for frame, translated in zip(frames, drawn, strict=True):
        assert np.abs(translated - torch_picture(run_folder, frame)).max() <= 1


def test_frames_are_resized_in_the_graph_and_upsampling_is_rewritten(run_folder, tmp_path):
    options = ("--frame-size", "120x160", "--upsample", "subpixel", "--no-engine")
    said = done(export, run_folder, *options, "--out", tmp_path)
    assert "7 transposed convolutions rewritten" in said
    path = tmp_path / "model.onnx"
    meta = meta_of_onnx(path)
    assert (meta.frame_size_px, meta.network_size_px) == ((120, 160), (SIDE_PX, SIDE_PX))
    assert meta.upsample == "subpixel"
    assert "ConvTranspose" not in kinds_in(path)
    assert {"DepthToSpace", "Resize"} <= kinds_in(path)
    frame = picture(5, 120, 160)
    expected = torch_picture(run_folder, frame, (120, 160), (SIDE_PX, SIDE_PX))
    with Translator.load(path) as translator:
        assert np.abs(translator(frame) - expected).max() <= 1


def test_a_dynamic_export_takes_frames_of_many_sizes_in_every_precision(
    resnet_folder, few, tmp_path, monkeypatch
):
    for module in ("verify", "job"):
        monkeypatch.setattr(f"export.{module}.CAMERA_SIZE_PX", (96, 128))  # it is drawn often
    options = ("--dynamic", "--batch", "4", "--fp16", "--int8", *QUICK, "--calibration", few)
    options += ("--min-psnr", "25", "--min-ssim", "0.8")  # a higher goal takes longer to find
    said = done(export, resnet_folder, *options, "--out", tmp_path)
    assert "each third at 96x128" in said
    frames = [picture(1, 64, 64), picture(2, 96, 64), picture(3, 64, 64)]
    expected = [torch_picture(resnet_folder, frame) for frame in frames]
    assert min(each.std() for each in expected) > 20
    for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx", "model.int8.cpu.onnx"):
        meta = meta_of_onnx(tmp_path / name)
        assert (meta.dynamic, meta.batch, meta.size_multiple) == (True, 4, 4)
        with Translator.load(tmp_path / name) as translator:
            drawn = translator.batch(frames)
        for translated, right in zip(drawn, expected, strict=True):
            squared = np.mean((translated - right) ** 2.0)
            assert squared < (400 if "int8" in name else 1), name
    profile = meta_of_engine(tmp_path / "model.fp16.engine").build["profile"]["frames"]
    assert profile["min"][0] == 1
    assert profile["max"][0] == 4


def test_gate_looks_at_the_input_half_of_side_by_side_pairs(run_folder, few, tmp_path):
    options = ("--images", few, "--direction", "BtoA", "--no-engine")
    done(export, run_folder, *options, "--out", tmp_path)
    report = json.loads((tmp_path / "parity.json").read_text())
    assert report["images"] == 8
    assert "right half" in report["images_from"]


def test_without_arguments_the_newest_run_is_exported(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "older", GeneratorConfig("resnet_6blocks", ngf=2))
    write_run(tmp_path / "runs" / "newer", GeneratorConfig("resnet_6blocks", ngf=2), "gone")
    monkeypatch.chdir(tmp_path)
    said = done(export, "--no-engine")
    assert names_in(tmp_path / "runs" / "newer") == {
        "generator.safetensors",
        "model.onnx",
        "parity.json",
        "parity.html",
    }
    assert names_in(tmp_path / "runs" / "older") == {"generator.safetensors"}
    assert "gone is not here: compared on drawn street scenes; use --images DIR" in said


# ------------------------------------------------------------------------ an ONNX file is exported


def test_an_onnx_of_ours_gets_more_precisions_and_stays_as_it_is(ours, few):
    before = ours.read_bytes()
    said = done(export, ours, "--fp16", "--int8", *QUICK, "--images", few, "--calibration", few)
    assert ours.read_bytes() == before
    assert names_in(ours.parent) == PROMISED
    meta = meta_of_onnx(ours.with_name("model.fp16.onnx"))
    assert (meta.precision, meta.source) == ("fp16", "generator.safetensors")
    assert meta.parity["images"] == 8
    report = json.loads((ours.parent / "parity.json").read_text())
    assert report["reference"] == "model.onnx, run by ONNX Runtime"
    assert "model.onnx" not in {row["file"] for row in report["artifacts"]}
    assert f"wrote {ours}" not in said.splitlines()


def test_an_onnx_of_ours_gets_its_engine_beside_it(ours):
    said = done(export, ours)
    engine = ours.with_name("model.engine")
    assert meta_of_engine(engine).precision == "fp32"
    assert f"wrote {engine}" in said
    assert names_in(ours.parent) == {"model.onnx", "model.engine", "model.engine.json"}


def test_an_engine_that_is_up_to_date_is_kept_and_another_option_builds_anew(ours):
    engine = ours.with_name("model.engine")
    assert "no engine yet" in done(export, ours)
    first = engine.stat().st_mtime_ns, sidecar_of(engine).read_text()
    said = done(export, ours)
    assert "is up to date: kept" in said
    assert (engine.stat().st_mtime_ns, sidecar_of(engine).read_text()) == first
    said = done(export, ours, "--workspace", "512")
    assert "built without --workspace, asked with --workspace 512" in said
    assert engine.stat().st_mtime_ns != first[0]
    assert meta_of_engine(engine).build["workspace_mib"] == 512
    ours.write_bytes(
        write_negative(ours.with_name("n.onnx"), (64, 64), meta_of_onnx(ours)).read_bytes()
    )
    assert "built from another model.onnx" in done(export, ours, "--workspace", "512")


def test_builder_options_reach_the_builder_or_are_told(ours, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(to_tensorrt, "LIBRARIES", ("tensorrt_rtx",))
    line = refused(export, ours, "--version-compatible")
    assert "--version-compatible with tensorrt_rtx" in line
    assert not ours.with_name("model.engine").exists()
    cache = ours.with_name("kernels.cache")
    said = done(export, ours, "--timing-cache", cache, "--hardware-compatible")
    assert "no effect with tensorrt_rtx" in said
    assert "--timing-cache" in said
    assert "--hardware-compatible" in said
    assert not cache.exists()
    assert "--workspace 0" in refused(export, ours, "--workspace", "0")


def test_without_tensorrt_the_onnx_is_made_and_the_package_named(
    resnet_folder, ours, few, tmp_path, monkeypatch
):
    monkeypatch.setattr(to_tensorrt, "LIBRARIES", ("tensorrt_that_is_not_here",))
    line = refused(export, ours, "--fp16", "--images", few, "--out", tmp_path / "out")
    assert "pip install 'pix2pix-edge[rtx]'" in line
    assert names_in(tmp_path / "out") == {"model.fp16.onnx", "parity.json", "parity.html"}
    assert "no TensorRT here" in refused(export, ours)
    plain = done(export, resnet_folder, "--no-verify", "--out", tmp_path / "plain")
    assert "no engine: no TensorRT here" in plain


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


def write_strangers_generator(path):
    """RGB, -1 to 1, down and up again: convolutions and a transposed one, without names."""
    random = np.random.default_rng(0)
    weights = {
        "a": random.normal(0, 0.3, (8, 3, 3, 3)),
        "b": random.normal(0, 0.2, (8, 8, 3, 3)),
        "c": random.normal(0, 0.2, (8, 3, 4, 4)),
        "d": random.normal(0, 0.1, 3),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "a"], ["1"], strides=[2, 2], pads=[1] * 4),
        node("Relu", ["1"], ["2"]),
        node("Conv", ["2", "b"], ["3"], pads=[1] * 4),
        node("LeakyRelu", ["3"], ["4"], alpha=0.2),
        node("ConvTranspose", ["4", "c", "d"], ["5"], strides=[2, 2], pads=[1] * 4),
        node("Tanh", ["5"], ["y"]),
    ]
    shape = [1, 3, 64, 96]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, str(path))
    return path


def test_a_strangers_generator_gets_every_precision(tmp_path, few):
    path = write_strangers_generator(tmp_path / "theirs.onnx")
    before, out = path.read_bytes(), tmp_path / "out"
    said = done(
        export,
        path,
        "--fp16",
        "--int8",
        *QUICK,
        "--images",
        few,
        "--calibration",
        few,
        "--out",
        out,
    )
    assert "not ours; its one input and output are images, taken as RGB, -1..1" in said
    assert path.read_bytes() == before
    assert len(list(out.glob("*.onnx"))) == 4
    assert len(list(out.glob("*.engine"))) == 2
    for onnx_file in out.glob("*.onnx"):
        meta = meta_of_onnx(onnx_file)
        assert (meta.generator, meta.source) == ("unknown", "theirs.onnx")
        assert meta.frame_size_px == (64, 96)
    rows = json.loads((out / "parity.json").read_text())["artifacts"]
    assert [row["passed"] for row in rows] == [True] * 4 + [None] * 2


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
def test_a_strangers_image_model_is_wrapped_and_gated(tmp_path, few, shape, dtype):
    path = write_float_model(tmp_path / "theirs.onnx", shape, dtype)
    out = tmp_path / "out"
    size = ["--imgsz", "64"] if "h" in shape else []
    done(export, path, "--images", few, "--out", out, *size)
    stem = "model.fp16" if dtype == TensorProto.FLOAT16 else "model"
    assert names_in(out) == {
        f"{stem}.onnx",
        f"{stem}.engine",
        f"{stem}.engine.json",
        "parity.json",
        "parity.html",
    }
    frame = picture(3)
    with Translator.load(out / f"{stem}.onnx") as translator:
        drawn = translator(frame)
    expected = np.rint(np.tanh(frame / 127.5 - 1) * 127.5 + 127.5)
    assert np.abs(drawn - expected).max() <= 1


def test_value_range_and_colour_order_of_a_stranger_are_kept(tmp_path, few):
    path = write_float_model(tmp_path / "theirs.onnx")
    taken = ("--value-range", "0..1", "--color-order", "BGR")
    done(export, path, "--images", few, "--out", tmp_path / "out", *taken, "--no-engine")
    frame = picture(3)
    with Translator.load(tmp_path / "out" / "model.onnx") as translator:
        drawn = translator(frame)
    assert np.abs(drawn - np.rint(np.tanh(frame / 255) * 255)).max() <= 1


# ----------------------------------------------------------------------- what does not fit is told


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


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--dynamic", "--frame-size", "120x160"), "--dynamic with --frame-size"),
        (("--calibration", "."), "--calibration without --int8"),
        (("--min-psnr", "30"), "--min-psnr without --int8"),
        (("--min-ssim", "0.9"), "--min-ssim without --int8"),
        (("--int8", "--fraction", "0.5"), "--fraction 0.5 without --calibration"),
        (
            ("--imgsz", "480x640"),
            "multiples of 128 pixels.*use --imgsz 512x640, and --frame-size 480x640",
        ),
        (("--imgsz", "480x640", "--dynamic"), "use --imgsz 512x640$"),
        (("--images", "none"), "no such folder: none"),
        (("--int8", "--calibration", "none"), "no such folder: none.*--calibration"),
        (("--workspace", "0"), "--workspace 0"),
    ],
)
def test_combinations_that_do_not_fit_are_refused(run_folder, tmp_path, options, told):
    assert re.search(told, refused(export, run_folder, "--out", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_a_size_that_a_resnet_cannot_mirror_is_refused(resnet_folder, tmp_path):
    line = refused(export, resnet_folder, "--imgsz", "4", "--out", tmp_path)
    assert "at least 8; use --imgsz 8x8" in line


@pytest.mark.parametrize("size", ["0", "12x", "x12", "a", "64x0", "-1"])
def test_what_is_no_size_is_refused_by_its_flag(run_folder, size):
    result = typed(export, run_folder, f"--imgsz={size}")
    assert result.exit_code == 2
    assert "'--imgsz': " in result.output


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("model.onnx", ("--imgsz", "256"), "--imgsz for .*fixed to 128x128"),
        ("model.onnx", ("--frame-size", "120x160"), "--frame-size for .* exported already"),
        ("model.onnx", ("--dynamic",), "--dynamic for .* exported already"),
        ("model.onnx", ("--batch", "2"), "--batch for .* exported already"),
        ("model.onnx", ("--norm-stats", "batch"), "--norm-stats for .* exported already"),
        ("model.onnx", ("--opset", "20"), "--opset for .* exported already"),
        ("model.onnx", ("--upsample", "subpixel"), "--upsample for .* exported already"),
        ("model.onnx", ("--no-engine",), "only an engine is left to make"),
        ("model.fp16.onnx", ("--int8",), "--int8 for .*, which is fp16"),
        ("model.int8.onnx", ("--fp16",), "--fp16 for .*, which is int8"),
        ("model.int8.cpu.onnx", (), "INT8 in the form of ONNX Runtime's CPU"),
    ],
)
def test_what_is_decided_in_an_onnx_of_ours_stays_so(exported, tmp_path, name, options, told):
    before = names_in(exported)
    assert re.search(told, refused(export, exported / name, "--out", tmp_path, *options))
    assert names_in(exported) == before
    assert not names_in(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--imgsz", "32"), "--imgsz 32x32.*64x64, the size that is fixed in the file"),
        (("--frame-size", "120x160"), "--frame-size for .*exported already"),
        (("--dynamic",), "--dynamic for "),
        (("--batch", "2"), "--batch for "),
        (("--norm-stats", "batch"), "--norm-stats for "),
        (("--opset", "20"), "--opset for "),
        (("--int8",), "no convolution"),
    ],
)
def test_what_is_decided_in_a_strangers_onnx_stays_so(tmp_path, few, options, told):
    path = write_float_model(tmp_path / "theirs.onnx")
    out = ("--out", tmp_path / "out", "--images", few)
    assert re.search(told, refused(export, path, *out, *options))


def test_a_strangers_fp16_gets_no_int8_and_none_overwrites_itself(tmp_path):
    half = write_float_model(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16)
    assert "which is fp16" in refused(export, half, "--int8", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    same_name = write_float_model(tmp_path / "model.onnx")
    before = same_name.read_bytes()
    assert "would overwrite it" in refused(export, same_name)
    assert same_name.read_bytes() == before


@pytest.mark.parametrize(("count", "fraction"), [(0, None), (1, None), (8, "0.5")])
def test_too_few_pictures_to_calibrate_on(ours, few, tmp_path, count, fraction):
    folder = tmp_path / "calibration"
    folder.mkdir()
    for path in sorted(few.iterdir())[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    more = ("--fraction", fraction) if fraction else ()
    line = refused(export, ours, "--int8", *QUICK, "--calibration", folder, *more, "--images", few)
    assert "at least 8" in line or "no pictures in" in line
    assert "--calibration" in line
    assert names_in(ours.parent) == {"model.onnx"}


def test_a_damaged_picture_is_named(ours, few, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "bad.png").write_bytes(next(few.iterdir()).read_bytes()[:60])
    assert "bad.png" in refused(export, ours, "--fp16", "--images", folder)


def test_bad_sources_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "p2p-train" in refused(export)
    assert "no such checkpoint" in refused(export, tmp_path / "nothing.safetensors")
    assert "no such model" in refused(export, tmp_path / "nothing.onnx")
    (tmp_path / "text.safetensors").write_text("hello")
    assert "not a checkpoint of p2p-train" in refused(export, tmp_path / "text.safetensors")
    (tmp_path / "text.onnx").write_text("hello")
    assert "not an ONNX file" in refused(export, tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    assert "not an ONNX file" in refused(export, tmp_path / "empty.onnx")
    (tmp_path / "run").mkdir()
    assert "no such checkpoint" in refused(export, tmp_path / "run")


def test_inspection_tells_what_a_file_is(exported, tmp_path):
    said = done(export, "--inspect", exported / "model.int8.onnx")
    assert "unet_128" in said
    assert "INT8" in said
    said = done(export, "--inspect", exported / "model.fp16.engine")
    assert "engine of tensorrt" in said
    assert "Half" in said
    said = done(export, "--inspect", write_strangers_generator(tmp_path / "theirs.onnx"))
    assert "FP32" in said
    (tmp_path / "text.onnx").write_text("hello")
    for wrong in ("text.onnx", "none.onnx", "none.engine"):
        assert wrong in refused(export, "--inspect", tmp_path / wrong)
    assert "--inspect without a file" in refused(export, "--inspect")


# ---------------------------------------------------------------------------------- a full disk


def on_a_small_disk(most_bytes, *arguments):
    """The command in a process of its own that may write no file larger than `most_bytes`."""
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from export.cli import export\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {most_bytes}))\n"
        f"sys.argv = {['p2p-export', *map(str, arguments)]!r}\n"
        "export()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: the disk is full")
    assert "Traceback" not in ended.stderr


def test_a_full_disk_leaves_nothing_half_written(resnet_folder, tmp_path):
    on_a_small_disk(10_000, resnet_folder, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_leaves_the_older_int8_file(ours, few):
    older = ours.with_name("model.int8.onnx")
    older.write_text("the older export")
    pictures = ("--images", few, "--calibration", few)
    on_a_small_disk(50_000, ours, "--int8", *QUICK, "--target", "tensorrt", *pictures)
    assert older.read_text() == "the older export"
    assert names_in(ours.parent) == {"model.onnx", "model.int8.onnx"}
