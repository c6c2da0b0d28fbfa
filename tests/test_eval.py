"""`p2p-eval` as it is typed: figures that are known, pages that show, input that is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from commands import done, refused, typed
from eval_networks import write_alexnet, write_inception
from made_runs import write_run
from onnx import TensorProto, helper
from onnx_models import write_negative
from pairs import picture, write_photos, write_side_by_side

from export.checkpoints import open_checkpoint
from export.cli import export
from export.eval_cli import evaluate
from export.norm_stats import with_batch_statistics
from export.subjects import torch_draws
from runtime.artifact import meta_of_onnx
from trainer.checkpoint import load_generator, save_generator
from trainer.config import GeneratorConfig
from trainer.data import open_pairs
from trainer.some_pairs import some_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE_PX = 64
LARGE_PX = 192
RESNET = GeneratorConfig("resnet_6blocks", ngf=2, norm="batch")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", RESNET)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Four pairs, B = 255 - A."""
    return write_side_by_side(tmp_path_factory.mktemp("data") / "pairs", 4, SIDE_PX, SIDE_PX)


@pytest.fixture(scope="module")
def large_pairs(tmp_path_factory):
    return write_side_by_side(tmp_path_factory.mktemp("data") / "pairs", 4, LARGE_PX, LARGE_PX)


@pytest.fixture(scope="module")
def negative(tmp_path_factory):
    """A model that draws these pairs' targets exactly."""
    path = tmp_path_factory.mktemp("models") / "negative.onnx"
    return write_negative(path, (LARGE_PX, LARGE_PX))


def rows_of(model, data, tmp_path, *more):
    file = tmp_path / "eval.json"
    done(evaluate, model, data, "--json", file, *more)
    return json.loads(file.read_text())


# -------------------------------------------------------------------------------------- figures


@pytest.mark.slow
def test_three_rows_and_the_same_for_a_checkpoint_and_its_onnx(run_folder, pairs, tmp_path):
    done(export, run_folder, "--no-engine", "--no-verify", "--images", pairs, "--out", tmp_path)
    forced = ("--norm-stats", meta_of_onnx(tmp_path / "model.onnx").norm_stats)
    by_torch = rows_of(run_folder, pairs, tmp_path, *forced)
    by_onnx = rows_of(tmp_path / "model.onnx", pairs, tmp_path)
    assert list(by_torch) == ["model", "identity", "mean_target"]
    for measure in ("l1", "psnr", "ssim", "gradient_energy", "swd"):
        ours, theirs = by_torch["model"][measure], by_onnx["model"][measure]
        assert theirs == pytest.approx(ours, abs=0.02, rel=0.01)
    # B is 255 - A: handing A back is off by |2A - 255| on average.
    images = [picture(n, SIDE_PX, SIDE_PX).astype(float) for n in range(4)]
    expected = np.mean([np.abs(2 * a - 255).mean() for a in images])
    assert by_torch["identity"]["l1"] == pytest.approx(expected, rel=1e-6)
    mean = np.rint(np.mean([255 - a for a in images], axis=0))
    expected = np.mean([np.abs(mean - (255 - a)).mean() for a in images])
    assert by_torch["mean_target"]["l1"] == pytest.approx(expected, rel=1e-6)


def test_a_model_that_draws_the_targets_is_right_in_every_measure(negative, large_pairs, tmp_path):
    rows = rows_of(negative, large_pairs, tmp_path)
    model = rows["model"]
    assert (model["l1"], model["psnr"], model["swd"]) == (0, 100, 0)
    assert model["swd_levels"] == {"192": 0, "96": 0, "48": 0, "24": 0}
    assert (model["ssim"], model["ms_ssim"]) == pytest.approx((1, 1), abs=1e-5)
    assert model["gradient_energy"] == pytest.approx(1)
    # The negative of a picture is as sharp as the picture; the mean of four is blurred.
    assert rows["identity"]["gradient_energy"] == pytest.approx(1, abs=1e-3)
    assert rows["mean_target"]["gradient_energy"] < 0.6
    for trivial in ("identity", "mean_target"):
        assert rows[trivial]["swd"] > 100
        assert rows[trivial]["ms_ssim"] < 0.9
        assert not {"lpips", "fid", "inception_score"} & set(rows[trivial])


def test_what_small_pictures_do_not_allow_is_null_and_told(run_folder, pairs, tmp_path):
    file = tmp_path / "eval.json"
    said = done(evaluate, run_folder, pairs, "--json", file)
    assert "MS-SSIM is left out: its five scales need pictures of 176 pixels or more" in said
    assert json.loads(file.read_text())["model"]["ms_ssim"] is None
    tiny = write_negative(tmp_path / "tiny.onnx", (12, 12))
    model = rows_of(tiny, pairs, tmp_path)["model"]
    assert (model["swd"], model["swd_levels"]) == (None, {})
    assert model["l1"] < 1


def test_count_takes_so_many_pairs(negative, large_pairs, tmp_path):
    rows = rows_of(negative, large_pairs, tmp_path, "--count", 1)
    assert rows["mean_target"]["l1"] == 0, "the mean of one target is that target"


def test_some_pairs_are_evenly_over_all_and_keep_their_names(training_pairs):
    every = open_pairs(training_pairs / "train", "AtoB")
    some = some_of(every, 3)
    assert [some.name(index) for index in range(len(some))] == [every.name(i) for i in (0, 2, 5)]
    assert (some.pair(2, 32)[0] == every.pair(5, 32)[0]).all()
    assert some_of(every, 8) is some_of(every, None) is every


def test_lpips_fid_and_inception_score_come_with_local_weights(negative, large_pairs, tmp_path):
    file = tmp_path / "eval.json"
    weights = write_alexnet(tmp_path / "alexnet.pth"), write_inception(tmp_path / "inception.pt")
    asked = ("--lpips-weights", weights[0], "--inception", weights[1])
    said = done(evaluate, negative, large_pairs, "--json", file, *asked)
    assert "FID over 4 pictures, fewer than 2,048, is biased upwards" in said
    rows = json.loads(file.read_text())
    assert rows["model"]["lpips"] == 0
    assert rows["model"]["fid"] == pytest.approx(0, abs=1e-4)
    for trivial in ("identity", "mean_target"):
        assert rows[trivial]["lpips"] > 0.01
        assert rows[trivial]["fid"] > 1
    assert rows["mean_target"]["inception_score"] == pytest.approx(1)
    assert rows["model"]["inception_score"] > 1
    page = (tmp_path / "eval.html").read_text()
    assert all(name in page for name in ("LPIPS", "FID over 4 pictures", "Inception Score"))


def test_a_checkpoint_is_given_the_inputs_that_it_was_trained_for(tmp_path):
    folder = write_run(tmp_path / "run", GeneratorConfig("resnet_6blocks", ngf=2, norm="none"))
    network, info = load_generator(folder)
    save_generator(
        folder / "generator.safetensors", network.state_dict(), replace(info, task="colourise")
    )
    photos = write_photos(tmp_path / "photos", 3, SIDE_PX, SIDE_PX)
    found = rows_of(folder, photos, tmp_path)["identity"]["l1"]
    grey = [
        cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).astype(float)
        for p in (picture(n, SIDE_PX, SIDE_PX) for n in range(3))
    ]
    expected = np.mean(
        [np.abs(g - picture(n, SIDE_PX, SIDE_PX)).mean() for n, g in enumerate(grey)]
    )
    assert found == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------------------------ BatchNorm


@pytest.fixture(scope="module")
def drawn_by_batch(run_folder, tmp_path_factory):
    """Pairs whose targets are what the run draws with each frame's own statistics."""
    folder = tmp_path_factory.mktemp("data") / "batch"
    folder.mkdir()
    checkpoint = open_checkpoint(run_folder)
    draw = torch_draws(checkpoint, with_batch_statistics(checkpoint.generator))
    for number in range(3):
        a = picture(50 + number, SIDE_PX, SIDE_PX)
        cv2.imwrite(str(folder / f"{number}.png"), np.hstack([a, draw(a)]))
    return folder


def test_statistics_that_draw_better_than_those_of_the_export_are_told_with_both_figures(
    run_folder, drawn_by_batch, tmp_path
):
    said = done(evaluate, run_folder, drawn_by_batch, "--json", tmp_path / "eval.json")
    told = re.search(
        r"BatchNorm draws better with batch statistics: L1 (\S+) grey levels against (\S+) with "
        r"running statistics, on 3 pairs; use --norm-stats batch",
        said,
    )
    assert told
    rows = json.loads((tmp_path / "eval.json").read_text())
    assert float(told[1]) == 0
    assert float(told[2]) == pytest.approx(rows["model"]["l1"], abs=0.06)
    assert "BatchNorm draws better" in (tmp_path / "eval.html").read_text()


def test_norm_stats_forces_the_statistics(run_folder, drawn_by_batch, tmp_path):
    file = tmp_path / "eval.json"
    asked = ("--norm-stats", "batch", "--json", file)
    said = done(evaluate, run_folder, drawn_by_batch, *asked)
    assert "BatchNorm: each frame's own statistics" in said
    assert "as asked with --norm-stats" in said
    assert "draws better" not in said
    assert json.loads(file.read_text())["model"]["l1"] == 0


# ------------------------------------------------------------------------------------- the files


def test_the_page_lies_beside_the_json_or_where_it_is_asked_for(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_negative(tmp_path / "model.onnx", (SIDE_PX, SIDE_PX))
    done(evaluate, "model.onnx", pairs)
    assert names_in(tmp_path) == {"model.onnx"}
    done(evaluate, "model.onnx", pairs, "--json", tmp_path / "a" / "q.json")
    assert names_in(tmp_path / "a") == {"q.json", "q.html"}
    done(evaluate, "model.onnx", pairs, "--html", tmp_path / "page.html")
    assert names_in(tmp_path) == {"model.onnx", "a", "page.html"}


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_one_file_for_json_and_page_is_refused(negative, large_pairs, tmp_path):
    line = refused(evaluate, negative, large_pairs, "--json", tmp_path / "q.html")
    assert "q.html for both the JSON and the page; expected two files" in line
    assert names_in(tmp_path) == set()


# ------------------------------------------------------------------------------------- on video


def write_moving(path, frames=8):
    """A picture that stands still, 104x48, and a square that moves over it; FFV1 loses nothing."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 12.5, (104, 48))
    for number in range(frames):
        image = picture(3, 48, 104) // 2 + 60
        image[10:25, 5 + 10 * number : 17 + 10 * number] = 255
        writer.write(image)
    writer.release()
    return path


def write_trembling(path, sigma):
    """A frame-in frame-out model that draws its input with noise of its own in each frame."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("RandomNormalLike", ["levels"], ["noise"], scale=sigma),
        helper.make_node("Add", ["levels", "noise"], ["sum"]),
        helper.make_node("Clip", ["sum", "black", "white"], ["drawn"]),
        helper.make_node("Round", ["drawn"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["translated"], to=TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in (("black", 0.0), ("white", 255.0))
    ]
    frames = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 48, 104, 3])
        for name in ("frames", "translated")
    ]
    graph = helper.make_graph(nodes, "trembling", frames[:1], frames[1:], ends)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_flicker_of_a_model_that_adds_noise_is_the_size_of_its_noise(tmp_path):
    clip = write_moving(tmp_path / "clip.avi")
    rows = rows_of(write_trembling(tmp_path / "model.onnx", 5.0), clip, tmp_path)
    assert list(rows) == ["model", "identity"]
    assert rows["model"]["flicker"] == pytest.approx(2 * 5 / np.sqrt(np.pi), rel=0.05)
    assert rows["identity"]["flicker"] < 0.1
    assert 0.5 < rows["model"]["still_share"] < 0.95
    assert rows["model"]["changes"] == 7


def test_a_model_that_draws_each_frame_alike_flickers_as_its_input_does(negative_onnx, tmp_path):
    clip = write_moving(tmp_path / "clip.avi")
    rows = rows_of(negative_onnx, clip, tmp_path, "--count", 5)
    assert rows["model"] == rows["identity"]
    assert rows["model"]["changes"] == 4
    page = (tmp_path / "eval.html").read_text()
    assert page.count("<figure>") == 12
    assert "Worst: frame" in page


def test_a_checkpoint_draws_a_video_at_its_own_size(run_folder, tmp_path):
    said = done(evaluate, run_folder, write_moving(tmp_path / "clip.avi"), "--count", 2)
    assert "the first 2 frames, 64x64" in said


def test_a_video_in_which_all_moves_has_no_figure_and_says_so(negative_onnx, tmp_path):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"FFV1"), 12.5, (104, 48))
    for level in (20, 90, 160):
        writer.write(np.full((48, 104, 3), level, np.uint8))
    writer.release()
    assert "Nothing in this video stands still" in done(evaluate, negative_onnx, clip)
    assert rows_of(negative_onnx, clip, tmp_path)["model"]["flicker"] is None


# ----------------------------------------------------------------------------- what is refused


def test_what_is_not_there_is_told(run_folder, pairs, tmp_path):
    assert "no such folder" in refused(evaluate, run_folder, tmp_path / "none")
    assert "no such checkpoint" in refused(evaluate, tmp_path / "none", pairs)
    assert "no such video" in refused(evaluate, run_folder, tmp_path / "none.mp4")


def test_weights_that_are_not_there_or_damaged_are_told(negative, large_pairs, tmp_path):
    for flag, told in (
        ("--lpips-weights", "damaged or no state dict; expected torchvision's weights of AlexNet"),
        ("--inception", "damaged or no TorchScript; expected Inception as StyleGAN's authors"),
    ):
        line = refused(evaluate, negative, large_pairs, flag, tmp_path / "none.pt")
        assert "none.pt" in line
        (tmp_path / "bad.pt").write_bytes(b"no weights")
        assert told in refused(evaluate, negative, large_pairs, flag, tmp_path / "bad.pt")


def test_fid_of_one_pair_is_refused_before_anything_is_drawn(negative, large_pairs, tmp_path):
    inception = write_inception(tmp_path / "inception.pt")
    line = refused(evaluate, negative, large_pairs, "--inception", inception, "--count", 1)
    assert "--inception with 1 pair" in line
    assert "2 pairs or more" in line


def test_options_that_do_not_go_with_what_was_named_are_refused(
    negative, negative_onnx, large_pairs, tmp_path
):
    clip = write_moving(tmp_path / "clip.avi", 2)
    for option in (("--direction", "AtoB"), ("--task", "edges"), ("--inception", "x.pt")):
        line = refused(evaluate, negative, clip, *option)
        assert f"{option[0]} with {clip}, which is a video; expected pairs" in line
    line = refused(evaluate, negative, large_pairs, "--norm-stats", "batch")
    assert "which is exported already; expected a checkpoint" in line
    assert "works at 48x104; expected a square size" in refused(
        evaluate, negative_onnx, large_pairs
    )


def test_one_picture_and_one_frame_are_refused(negative, tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), picture(1))
    assert "one.png is one picture" in refused(evaluate, negative, tmp_path / "one.png")
    clip = write_moving(tmp_path / "clip.avi", 1)
    assert "holds one frame; expected 2 or more" in refused(evaluate, negative, clip)
    clip = write_moving(tmp_path / "clip.avi", 3)
    assert "--count 1 with" in refused(evaluate, negative, clip, "--count", 1)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert "bad.mp4 holds no frame" in refused(evaluate, negative, tmp_path / "bad.mp4")


def test_a_command_line_that_click_refuses_is_no_traceback(negative):
    result = typed(evaluate, negative, "scenes", "--count", "0")
    assert result.exit_code == 2
    assert "Invalid value for '--count'" in result.output
