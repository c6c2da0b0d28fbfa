"""The frontier: real runs through the real commands, its table, its plot and its page."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import done
from made_runs import write_run
from pairs import write_side_by_side

from benchmarks.frontier import main
from benchmarks.frontiers.frames import FrameRow, Frames, lines
from benchmarks.frontiers.goals import STUDENT_GOAL, UNSEEN_GOAL, answers, compression_goal
from benchmarks.frontiers.latency import Latencies, Ratio
from benchmarks.frontiers.plot import COLORS, Point, draw, pareto
from benchmarks.frontiers.recipes import (
    RECIPES,
    Source,
    by_source,
    hold_out,
    source_of,
    training_options,
    with_unseen,
)
from benchmarks.frontiers.report import MARKERS, Part, markdown
from benchmarks.frontiers.rows import (
    Job,
    Measuring,
    Row,
    export_through_gate,
)
from export.checkpoints import open_checkpoint
from runtime.errors import UserError
from trainer.checkpoint import load_training, save_training
from trainer.cli import train as p2p_train
from trainer.config import GENERATORS, GeneratorConfig
from trainer.errors import DataError
from trainer.scenes import draw_pair

TRAINING = "--ngf 8 --ndf 4 --crop-size 64 --load-size 64"
DOCS = "before\n{}\n{}\nafter\n".format(*MARKERS)


def row(name, l1=20.0, ssim=0.5, swd=100.0, macs=1e9, parameters=1e6, **changed):
    """A row of figures, INT8 a little worse than FP32; no network."""
    figures = {
        form: {
            "l1": l1 + worse,
            "psnr": 17.0,
            "ssim": ssim,
            "ms_ssim": None,
            "swd": swd,
            "gradient_energy": 0.5,
        }
        for form, worse in (("fp32", 0.0), ("int8", 0.1))
    }
    gate = {form: {"passed": True, "psnr_db": 40.0, "ssim": 0.99} for form in ("fp32", "int8")}
    values = {
        "data": "drawn",
        "name": name,
        "sha256": "",
        "training": "",
        "images_seen": 8,
        "size_px": 256,
        "parameters": int(parameters),
        "macs": int(macs),
        "settings": {},
        "gate": gate,
        "held_out": figures,
        **changed,
    }
    return Row(**values)


def times(**by_name):
    """Latencies of two rounds from (torch, FP32, INT8) milliseconds."""
    ways = ("torch", "ort_fp32", "ort_int8")
    samples = {
        name: {way: [[ms, ms], [ms, ms]] for way, ms in zip(ways, values, strict=True)}
        for name, values in by_name.items()
    }
    around = {"cpu": "a processor", "libraries": {}, "load_average_1m": 0.0}
    return Latencies(samples, [], around, 1)


def refused(capsys, *arguments):
    """The one line that the command ends in."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in "".join(lines)
    return lines[-1]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Drawn pairs of 64 pixels, of the cameras cam1, cam2 and cam10."""
    root = tmp_path_factory.mktemp("scenes")
    for phase, seeds in (("train", range(9)), ("val", range(40, 46))):
        (root / phase).mkdir()
        for number, seed in enumerate(seeds):
            name = f"cam{(1, 2, 10)[number % 3]}_{seed}.png"
            assert cv2.imwrite(str(root / phase / name), np.hstack(draw_pair(seed, 64, 64)))
    return root


# ----------------------------------------------------------------------------- what it takes


def test_every_recipe_trains_a_generator_that_there_is_and_none_is_there_twice():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    for recipe in RECIPES:
        assert recipe.options[recipe.options.index("--netG") + 1] in GENERATORS


def test_a_set_of_pairs_has_a_name_a_folder_and_a_direction(tmp_path):
    assert source_of(f"a={tmp_path}:BtoA") == Source("a", str(tmp_path), "BtoA")
    for wrong in (f"={tmp_path}", str(tmp_path), "a="):
        with pytest.raises(UserError, match="NAME=FOLDER"):
            source_of(wrong)


def test_unseen_pairs_may_lie_in_val_and_a_folder_without_any_is_refused_at_once(scenes, tmp_path):
    source = Source("a", str(scenes))
    assert with_unseen(source, str(scenes)).unseen == str(scenes / "val")
    assert with_unseen(source, str(scenes / "train")).unseen == str(scenes / "train")
    with pytest.raises(DataError, match="no pairs in"):
        with_unseen(source, str(tmp_path))


def test_an_option_of_one_set_needs_no_name_where_there_is_one(tmp_path):
    assert by_source("--unseen", ["x"], ["a"]) == {"a": "x"}
    assert by_source("--unseen", ["b=x"], ["a", "b"]) == {"b": "x"}
    with pytest.raises(UserError, match="a NAME of --data: a, b"):
        by_source("--unseen", ["x"], ["a", "b"])


def test_cameras_are_held_out_by_the_start_of_their_files_names_as_links(scenes, tmp_path):
    for _ in range(2):  # a second time changes nothing
        source = hold_out(Source("a", str(scenes)), "cam10,cam2", tmp_path)
        seen = sorted(path.name for path in Path(source.data).rglob("*.png"))
        unseen = sorted(path.name for path in Path(source.unseen).iterdir())
        assert {name.partition("_")[0] for name in seen} == {"cam1"}
        assert {name.partition("_")[0] for name in unseen} == {"cam2", "cam10"}
        assert len(seen) + len(unseen) == 15
        assert all(path.is_symlink() for path in Path(source.unseen).iterdir())
    other = hold_out(Source("a", str(scenes)), "cam1", tmp_path)
    assert len(list(Path(other.unseen).iterdir())) == 5, "what was held out before is back"


@pytest.mark.parametrize("cameras", ["cam3", "cam1,cam2,cam10", ","])
def test_a_camera_that_is_not_there_or_none_left_is_refused(scenes, tmp_path, cameras):
    with pytest.raises(UserError, match=r"cam1 \(5\), cam10 \(5\), cam2 \(5\)"):
        hold_out(Source("a", str(scenes)), cameras, tmp_path)


def test_what_cannot_be_measured_is_refused_in_one_line(scenes, tmp_path, capsys):
    data, out = f"--data=a={scenes}", f"--out={tmp_path / 'out'}"
    assert "no such folder" in refused(capsys, "--data=a=gone", out)
    assert "twice" in refused(capsys, data, data, out)
    assert "no such run" in refused(capsys, data, out, "--run=a/x=gone")
    assert "DATA/NAME=RUN" in refused(capsys, data, out, f"--run=b/x={tmp_path}")
    assert "no generator to measure" in refused(capsys, data, out, "--no-train")
    assert "no generator in" in refused(
        capsys, data, out, "--only=mobilenet_unet", "--latency-only"
    )
    (tmp_path / "x.md").write_text("none")
    assert "has no <!-- frontier" in refused(capsys, data, out, "--docs", tmp_path / "x.md")


def test_a_run_of_another_data_set_is_refused(scenes, tmp_path, capsys):
    other = write_side_by_side(tmp_path / "other" / "train", 2).parent
    run = write_run(tmp_path / "run", GeneratorConfig("unet_128", ngf=2), str(other))
    arguments = (f"--data=a={scenes}", f"--out={tmp_path / 'out'}", "--no-train")
    line = refused(capsys, *arguments, f"--run=a/x={run}")
    assert f"was trained on {other} AtoB, 10 steps" in line
    assert "--other-data" in line


def test_a_training_that_fails_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "empty" / "val").mkdir(parents=True)
    data, out = f"--data=a={tmp_path / 'empty'}", f"--out={tmp_path / 'out'}"
    assert "no pairs in" in refused(capsys, data, out, "--only=mobilenet_unet", "--images=4")


def test_a_recipe_of_other_batches_has_the_steps_that_see_as_many_images():
    common = ("--batch-size", "4", "--seed", "0")
    assert training_options((), common, 10) == ("--steps", "3", *common)
    own = ("--batch-size", "1", "--accumulate", "2")
    assert training_options(own, common, 10) == ("--steps", "5", *common, *own)


def test_an_export_that_crashes_is_told_and_not_taken_for_a_failed_gate(
    scenes, tmp_path, monkeypatch
):
    run = write_run(tmp_path / "run", GeneratorConfig("unet_128", ngf=2), str(scenes))
    program = tmp_path / "p2p-export"
    program.write_text("#!/bin/sh\necho 'MemoryError: no more of it'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    job = Job(Source("a", str(scenes)), "x", tmp_path / "out", given=run)
    out = tmp_path / "out" / "export"
    gate, notes = export_through_gate(job, Measuring(38.0), open_checkpoint(run), out)
    assert gate == {}
    assert notes == ["FP32 and INT8 not exported: MemoryError: no more of it"]


# ------------------------------------------------------------------------------ what it says


def test_the_frontier_is_what_nothing_else_beats_in_both():
    points = [
        Point("slow and best", "fp32", 9.0, 10.0),
        Point("fast", "fp32", 1.0, 30.0),
        Point("beaten", "fp32", 5.0, 31.0),
        Point("middle", "fp32", 4.0, 20.0),
        Point("as good, slower", "fp32", 6.0, 20.0),
        Point("as fast, worse", "fp32", 4.0, 21.0),
    ]
    low = [point.name for point in pareto(points, higher_is_better=False)]
    assert low == ["fast", "middle", "slow and best"]
    high = [point.name for point in pareto(points, higher_is_better=True)]
    assert high == ["fast", "beaten"]
    assert pareto([], higher_is_better=True) == []


def test_a_ratio_lies_in_its_interval_and_noise_widens_it():
    steady, noisy = Ratio.of([4.0] * 9), Ratio.of([2.0, 2, 3, 3, 4, 5, 6, 8, 9])
    assert (steady.value, steady.low, steady.high) == (4, 4, 4)
    assert noisy.value == 4
    assert 2 <= noisy.low < 4 < noisy.high <= 9


def test_a_student_reaches_its_goals_only_where_it_is_as_good_and_through_the_gate():
    teacher = row("unet_256", l1=20.2, macs=20e9, parameters=40e6)
    failed = {"int8": {"passed": False, "psnr_db": 30.0, "ssim": 0.9}}
    rows = [
        teacher,
        row("good"),
        row("blurred", ssim=0.4),
        row("slow"),
        row("failed", gate=failed),
        row("large", macs=19e9),
    ]
    fast = (1.0, 1.0, 1.0)
    timed = times(
        unet_256=(60, 30, 10), good=fast, blurred=fast, slow=(9, 9, 9), failed=fast, large=fast
    )
    found = {(a.generator, a.goal): a for a in answers(rows, "unet_256", timed)}
    expected = {"good": True, "blurred": False, "slow": False, "failed": False, "large": True}
    assert {name: found[name, STUDENT_GOAL].reached for name in expected} == expected
    assert found["good", STUDENT_GOAL].found.startswith("60.0 (60.0 to 60.0); L1 −0.5 %, SSIM")
    small = compression_goal("unet_256")
    assert found["good", small].reached is True
    assert found["good", small].found.startswith("20.0, 40.0; L1 −1.0 %")
    assert found["blurred", small].reached is False, "SSIM is a fifth lower"
    assert found["large", small].reached is False
    untimed = {(a.generator, a.goal): a for a in answers(rows, "unet_256", None)}
    assert untimed["good", STUDENT_GOAL].reached is None
    assert untimed["blurred", STUDENT_GOAL].reached is False, "whatever its speed"


def test_a_generator_that_saw_more_images_is_marked_and_gets_no_verdict():
    teacher = row("unet_256", images_seen=1500, macs=20e9, parameters=40e6)
    rows = [teacher, row("long", l1=10.0, images_seen=3000), row("even", images_seen=1504)]
    found = {(a.generator, a.goal): a for a in answers(rows, "unet_256", None)}
    assert found["long", compression_goal("unet_256")].reached is None
    assert found["even", compression_goal("unet_256")].reached is True
    table = markdown([Part(Source("a", "a"), rows, None)], "unet_256")
    assert "| `long` | 3,000 ≠ |" in table
    assert "| `even` | 1,504 | " in table
    assert "not comparable, 3,000 images seen against 1,500: " in table
    assert "Not a fair comparison: `long` saw" in table
    unknown = [teacher, row("x", images_seen=None)]
    assert "| unknown ≠ |" in markdown([Part(Source("a", "a"), unknown, None)], "unet_256")


def test_a_retouching_generator_is_asked_for_frames_a_second_and_the_teacher_is_not():
    fast, slow = {"int8": [[60.0, 60.0]]}, {"int8": [[70.0, 70.0]]}
    rows = [
        FrameRow(name, (1080, 1920), (256, 256), name != "unet_256", "", 38.0, samples_ms=ms)
        for name, ms in (("quick", fast), ("slow", slow), ("unet_256", fast))
    ]
    text = "\n".join(lines(Frames(rows)))
    asked = [line for line in text.splitlines() if "| INT8 |" in line]
    assert "| 16.7 | – | ✓ at least 15 frames/s |" in asked[0]
    assert "| 14.3 | – | ✗ at least 15 frames/s |" in asked[1]
    assert asked[2].endswith("| 16.7 | – |  |")


def test_unseen_cameras_are_compared_apart():
    better = row("x", l1=15.0, ssim=0.6, swd=90.0)
    teacher = row("unet_256", unseen=row("y").held_out)
    students = [row("good", unseen=better.held_out), row("same", unseen=teacher.unseen)]
    rows = [teacher, *students]
    found = answers(rows, "unet_256", None)
    reached = {a.generator: a.reached for a in found if a.goal == UNSEEN_GOAL}
    assert reached == {"good": True, "same": False}
    table = markdown([Part(Source("a", "a", cameras=("cam9",)), rows, None)], "unet_256")
    assert "never saw** (cam9)" in table


def test_a_row_that_failed_the_gate_says_so_and_the_best_of_a_column_is_bold():
    failed = row("failed", gate={"int8": {"passed": False, "psnr_db": 30.0, "ssim": 0.9}}, l1=19.0)
    failed.notes.append("INT8 failed the gate: worst PSNR 30.0 dB, SSIM 0.9000")
    table = markdown([Part(Source("a", "a"), [row("good"), failed], None)], "unet_256")
    assert "30.0, failed the gate" in table
    assert "`failed`: INT8 failed the gate: worst PSNR 30.0 dB" in table
    assert "**19.00**" in table
    assert "**20.00**" not in table


def test_the_plot_shows_every_generator_in_every_panel(tmp_path):
    rows = [row("one"), row("two", l1=15.0, swd=50.0), row("three", ssim=0.8)]
    timed = times(one=(9, 4, 1), two=(90, 40, 12), three=(99, 80, 70))
    parts = [Part(Source("a", "a"), rows, timed), Part(Source("b", "b"), rows, None)]
    assert draw(parts, tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    height, width = picture.shape[:2]
    assert width == 1800
    assert height < width / 2, "one row: the other set has no latencies"
    for color in COLORS[:3]:
        bgr = [int(color[at : at + 2], 16) for at in (5, 3, 1)]
        there = (np.abs(picture.astype(int) - bgr).max(axis=2) < 3).any(axis=0)
        for panel in np.array_split(there, 3):
            assert panel.sum() > 10, color
    assert not draw(parts[1:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


# ---------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def went_on(scenes, tmp_path_factory):
    """A training that was stopped after one of two steps, and the command that goes on with it."""
    root = tmp_path_factory.mktemp("frontier")
    out, docs = root / "out", root / "quality.md"
    docs.write_text(DOCS)
    run = out / "drawn" / "relight_s" / "run"
    options = ["--netG", "relight_s", "--steps", "2", "--batch-size", "2", *TRAINING.split()]
    done(p2p_train, scenes, "--direction", "AtoB", *options, "--out", run)
    state = load_training(run)
    state.step = 1
    save_training(run / "training.safetensors", state)
    command = [f"--data=drawn={scenes}", f"--out={out}", "--only=relight_s", "--images=4"]
    command += ["--batch-size=2", f"--train-options={TRAINING}", "--teacher=relight_s"]
    command += ["--rounds=2", "--frames=1", "--threads=1", f"--unseen={scenes / 'train'}"]
    command += [f"--json={root / 'rows.json'}", f"--docs={docs}", "--count=4", "--min-psnr=15"]
    command += ["--frame-size=72x128"]
    assert main(command) == 0
    return root, command


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_is_exported_measured_and_timed(went_on):
    root, _ = went_on
    (data,) = json.loads((root / "rows.json").read_text())["data"]
    (found,) = data["rows"]
    assert load_training(root / "out/drawn/relight_s/run").step == 2
    assert found["images_seen"] == 4
    assert {"fp32", "identity", "mean_target"} <= set(found["held_out"])
    assert found["held_out"]["fp32"]["l1"] > 0
    assert found["unseen"]["identity"] != found["held_out"]["identity"]
    assert found["gate"]["fp32"]["passed"]
    assert ("int8" in found["held_out"]) == found["gate"]["int8"]["passed"]
    timed = found["latency_ms"]
    assert {"torch", "ort_stock", "ort_fp32", "openvino_stock", "openvino_fp32"} <= set(timed)
    assert all(told["count"] == 2 and told["least"] > 0 for told in timed.values())
    (large,) = data["frames"]
    assert (large["frame_size_px"], large["network_size_px"]) == ([72, 128], [64, 64])
    assert large["retouching"]
    assert large["own_ssim"].keys() == large["samples_ms"].keys() == {"fp32", "int8"}
    assert all(0.5 < ssim <= 1 for ssim in large["own_ssim"].values())
    page = (root / "quality.md").read_text()
    assert "| `relight_s` | 128x72 | looks at 64x64 | FP32 |" in page
    assert page.startswith("before")
    assert page.endswith("after\n")
    assert "| `relight_s` | 4 | " in page
    assert str(root) not in page


@pytest.mark.slow
def test_the_page_holds_input_target_and_both_forms_of_three_pairs(went_on):
    text = (went_on[0] / "out" / "pictures.html").read_text()
    pictures = re.findall(r"<img alt='([^']*)' src='data:image/png;base64,([^']+)'", text)
    titles = [title for title, _ in pictures]
    assert titles.count("input") == titles.count("target") == 6, "three held out, three unseen"
    assert titles.count("relight_s, FP32") == 6
    for _, data in pictures:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (64, 64, 3)
    assert text.count("Best of 4") == text.count("Worst of 4") == 2, "those that were measured"
    assert "://" not in text, "it needs nothing beside itself"


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_other_options_are_refused(went_on, capsys):
    root, command = went_on
    folder = root / "out" / "drawn" / "relight_s"
    kept = [
        folder / "run/generator.safetensors",
        folder / "export/model.onnx",
        folder / "measured.json",
    ]
    for path in kept:
        os.utime(path, (1, 1))
    before = (root / "rows.json").read_text()
    assert main([*command, "--no-latency", "--no-train"]) == 0
    assert all(path.stat().st_mtime == 1 for path in kept)
    texts = (before, (root / "rows.json").read_text())
    rows = [json.loads(text)["data"][0]["rows"][0] for text in texts]
    assert rows[0]["held_out"] == rows[1]["held_out"]
    assert rows[1]["latency_ms"] == {}, "the files have changed since they were timed"
    line = refused(capsys, *command, "--images=8")
    assert "was trained with other options" in line
