"""The gate passes what is the same and stops what is not."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
import torch
from onnx_models import write_negative
from pairs import picture
from torchmetrics.functional.image import structural_similarity_index_measure

from export.gate_images import GateImages
from export.job import export_subject
from export.report import GateRun, Section, verdict, write_reports
from export.settings import ExportSettings
from export.subjects import Subject
from export.ui import Ui
from export.verify import (
    CAMERA_SIZE_PX,
    EQUAL_PSNR_DB,
    THRESHOLDS,
    Comparison,
    Difference,
    Parity,
    Threshold,
    check_parity,
    not_run,
    ssim,
)
from runtime.artifact import ArtifactMeta, meta_of_onnx
from runtime.frame import resized
from runtime.translator import working_size_px

SIZE_PX = (48, 64)
META = ArtifactMeta("negative", "fp32", SIZE_PX, SIZE_PX, 18, "none", "0" * 64)


def frames(count=3):
    return [picture(seed, *SIZE_PX) for seed in range(count)]


def negative(frame):
    return 255 - frame


@pytest.mark.parametrize(("noise", "height"), [(0, 80), (1, 80), (30, 80), (30, 145), (30, 20)])
def test_ssim_is_that_of_torchmetrics(noise, height):
    first = picture(1, height, 96)
    random = np.random.default_rng(0)
    second = np.clip(first.astype(int) + random.integers(-noise, noise + 1, first.shape), 0, 255)
    second = second.astype(np.uint8)
    tensors = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (first, second)]
    theirs = structural_similarity_index_measure(*tensors, data_range=255.0)
    assert ssim(first, second) == pytest.approx(float(theirs), abs=1e-5)


def test_equal_pictures_have_a_finite_psnr():
    same = Difference.between(picture(1), picture(1))
    assert (same.psnr_db, same.max_abs_diff) == (EQUAL_PSNR_DB, 0)
    assert same.ssim == pytest.approx(1.0)


def test_psnr_is_that_of_the_textbook():
    dark = np.zeros((8, 8, 3), np.uint8)
    assert Difference.between(dark, dark + 5).psnr_db == pytest.approx(20 * np.log10(255 / 5))


@pytest.mark.parametrize(
    ("precision", "psnr_db", "ssim", "max_abs_diff", "passed"),
    [
        ("fp32", 60.0, 0.99, 1, True),
        ("fp32", 60.0, 0.99, 2, False),
        ("fp16", 45.0, 0.99, 3, True),
        ("fp16", 44.9, 0.99, 3, False),
        ("fp16", 60.0, 0.99, 4, False),
        ("int8", 35.0, 0.97, 200, True),
        ("int8", 34.9, 0.97, 1, False),
        ("int8", 60.0, 0.969, 1, False),
    ],
)
@pytest.mark.parametrize("where", ["differences", "at_camera_size"])
def test_one_bad_picture_fails_the_gate(precision, psnr_db, ssim, max_abs_diff, passed, where):
    good = Difference(80.0, 1.0, 0)
    bad = Difference(psnr_db, ssim, max_abs_diff)
    pictures = {"differences": (good,), "at_camera_size": (good,)} | {where: (good, bad, good)}
    finding = Parity("m.onnx", precision, "", THRESHOLDS[precision], **pictures)
    assert finding.passed is passed
    if where == "differences":
        assert finding.worst == 1
        assert finding.summary()["images"] == 3


def test_what_was_not_run_is_neither_passed_nor_failed():
    finding = not_run("m.engine", "fp16", "no GPU")
    assert finding.passed is None
    assert verdict(finding) == "m.engine: not compared: no GPU"


def test_a_picture_that_changes_from_call_to_call_fails_the_gate():
    same = Difference(EQUAL_PSNR_DB, 1.0, 0)
    finding = Parity("m.onnx", "fp32", "", THRESHOLDS["fp32"], (same,), repeats=False)
    assert finding.passed is False
    assert "dropout is alive" in verdict(finding)


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (THRESHOLDS["fp32"], "PSNR at least 50 dB, at most 1 grey level off anywhere"),
        (THRESHOLDS["fp16"], "PSNR at least 45 dB, at most 3 levels off anywhere"),
        (Threshold(32.5, None, 0.9), "PSNR at least 32.5 dB, SSIM at least 0.9"),
    ],
)
def test_a_threshold_reads_as_what_it_asks(threshold, told):
    assert str(threshold) == told


def test_verdict_gives_the_figures_at_both_sizes():
    finding = Parity(
        "m.onnx",
        "fp16",
        "",
        THRESHOLDS["fp16"],
        (Difference(60.0, 0.9999, 1), Difference(50.0, 0.998, 2)),
        (Difference(47.0, 0.99, 7),),
    )
    line = verdict(finding)
    assert "DOES NOT draw the same picture (worst of 2: PSNR 50.0 dB, SSIM 0.99800, 2 lev" in line
    assert "frames of 640x480: 47.0 dB, 0.99000, 7 levels; asked: PSNR at least 45 dB" in line


@pytest.mark.parametrize(("dynamic", "size_px"), [(False, SIZE_PX), (True, (480, 640))])
def test_frames_of_a_camera_go_the_way_that_the_runtime_sends_them(dynamic, size_px):
    asked = []

    def reference(frame):
        asked.append(frame.shape[:2])
        return negative(frame)

    seen = Comparison.drawn(frames(6), reference, lambda _size: size_px)
    assert asked == [size_px] * 4 + [SIZE_PX] * 6
    assert [frame.shape[:2] for frame in seen.camera_references] == [CAMERA_SIZE_PX] * 4
    expected = resized(negative(resized(seen.camera_frames[0], size_px)), CAMERA_SIZE_PX)
    np.testing.assert_array_equal(seen.camera_references[0], expected)
    # Searches look at them too where the model works at another size for a camera.
    assert [frame.shape[:2] for frame in seen.other_frames] == [size_px] * (4 if dynamic else 0)
    assert len(seen.other_references) == len(seen.other_frames)


@pytest.mark.parametrize(
    ("batch", "open_sides"), [(1, False), (3, False), (4, True)], ids=["one", "three", "open"]
)
def test_an_artifact_is_run_as_it_ships(tmp_path, batch, open_sides):
    meta = ArtifactMeta(
        "negative", "fp32", SIZE_PX, SIZE_PX, 18, "none", "0" * 64, batch=batch, dynamic=open_sides
    )
    sides = ("h", "w") if open_sides else SIZE_PX
    path = write_negative(tmp_path / "m.onnx", sides, meta, "n" if open_sides else batch)
    comparison = Comparison.drawn(frames(5), negative, lambda size: working_size_px(meta, size))
    finding, drawn = check_parity(path, comparison)
    assert finding.passed
    assert finding.repeats
    assert len(finding.differences) == 5
    assert len(finding.at_camera_size) == 4
    assert finding.max_abs_diff == 0
    np.testing.assert_array_equal(drawn[4], negative(frames(5)[4]))


def test_a_threshold_of_ones_own_replaces_that_of_the_precision(tmp_path):
    path = write_negative(tmp_path / "m.onnx", SIZE_PX, META)
    off_by_two = Comparison.drawn(
        frames(), lambda frame: np.clip(negative(frame), 2, 255) - 2, lambda _size: SIZE_PX
    )
    assert check_parity(path, off_by_two)[0].passed is False
    assert check_parity(path, off_by_two, Threshold(40.0))[0].passed is True


# ----------------------------------------------------------------------------- the report


def reported(tmp_path, findings, **more):
    drawn = {f.file: [negative(frame) for frame in frames()] for f in findings if f.differences}
    run = GateRun(
        "a run",
        "PyTorch",
        "3 of <here>",
        ["one", "two & a half", "three"],
        frames(),
        [negative(frame) for frame in frames()],
        findings,
        drawn,
        **more,
    )
    write_reports(tmp_path, run)
    return json.loads((tmp_path / "parity.json").read_text()), (
        tmp_path / "parity.html"
    ).read_text()


def test_report_shows_the_worst_picture_first_and_the_reason_of_what_did_not_run(tmp_path):
    differences = (Difference(80.0, 1.0, 0), Difference(51.0, 0.98, 1), Difference(90.0, 1.0, 0))
    ran = Parity("m.onnx", "fp32", "ORT", THRESHOLDS["fp32"], differences, differences[1:])
    report, page = reported(tmp_path, [ran, not_run("m.engine", "fp16", "no GPU")])
    rows = {row["file"]: row for row in report["artifacts"]}
    assert rows["m.onnx"]["worst_image"] == "two & a half"
    assert rows["m.onnx"]["camera_psnr_db"] == 51.0
    assert rows["m.onnx"]["camera_max_abs_diff"] == 1
    assert rows["m.onnx"]["camera_ssim"] == 0.98
    assert rows["m.engine"]["passed"] is rows["m.engine"]["camera_psnr_db"] is None
    assert rows["m.engine"]["engine"] == "no GPU"
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == ["The worst picture: two &amp; a half", "one", "three"]
    assert page.count("<img ") == 3 * 4  # input, reference, drawn, heat map
    assert "heat from 0 to 4 levels" in page
    assert "3 of &lt;here&gt;" in page
    assert "not compared" in page
    assert "://" not in page


def test_report_of_nothing_that_ran_has_no_pictures(tmp_path):
    _, page = reported(tmp_path, [not_run("m.engine", "fp16", "no GPU")])
    assert "<img" not in page
    assert "no GPU" in page


def test_tables_and_notes_are_in_both_reports_and_escaped(tmp_path):
    section = Section("What & why", "Since.", ("name", "dB"), [("<conv>", "41.0")])
    report, page = reported(tmp_path, [], sections=[section], notes=["a < b"])
    assert report["notes"] == ["a < b"]
    assert report["tables"] == [
        {"title": "What & why", "columns": ["name", "dB"], "rows": [["<conv>", "41.0"]]}
    ]
    for text in ("What &amp; why", "<td>&lt;conv&gt;", "a &lt; b"):
        assert text in page


# -------------------------------------------------------------------------------- the job


def subject_of_negative(reference=negative):
    """A subject whose file gives the negative, and whose reference may be something else."""

    return Subject(
        name="negative",
        meta=META,
        write=lambda path: write_negative(path, SIZE_PX, META) and None,
        reference=reference,
        reference_name="numpy",
        gate=GateImages(frames(), ["one", "two", "three"], "3 of them"),
        calibration=lambda: GateImages(frames(8), list("abcdefgh"), "8 of them"),
        notes=["said before"],
    )


def test_an_export_that_draws_something_else_is_not_written_but_reported(tmp_path):
    (tmp_path / "model.onnx").write_text("the older export")
    told = []
    exported = export_subject(
        subject_of_negative(lambda frame: np.where(frame > 200, frame, negative(frame))),
        tmp_path,
        ExportSettings(fp16=True, int8=True),
        Ui(told.append),
    )
    assert not exported.passed
    assert not exported.engines
    assert not exported.onnx_files
    assert (tmp_path / "model.onnx").read_text() == "the older export"
    report = json.loads((tmp_path / "parity.json").read_text())
    assert [row["passed"] for row in report["artifacts"]] == [False]
    assert "model.onnx: DOES NOT draw the same picture" in told[-1]
    assert "FAILED" in (tmp_path / "parity.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.onnx",
        "parity.json",
        "parity.html",
    }


def test_an_export_that_passes_carries_what_was_measured(tmp_path):
    settings = ExportSettings(build=False)
    exported = export_subject(subject_of_negative(), tmp_path, settings, Ui(lambda _line: None))
    assert exported.passed
    assert exported.onnx_files == {"fp32": tmp_path / "model.onnx"}
    meta = meta_of_onnx(tmp_path / "model.onnx")
    assert meta.verified
    assert meta.parity == {"psnr_db": 100.0, "ssim": 1.0, "max_abs_diff": 0, "images": 3}
    assert json.loads((tmp_path / "parity.json").read_text())["notes"] == ["said before"]
    onnx.checker.check_model(onnx.load(str(tmp_path / "model.onnx")))


def test_without_verification_nothing_is_compared_and_the_file_says_so(tmp_path):
    settings = ExportSettings(build=False, verify=False)
    subject = subject_of_negative(lambda frame: frame)  # what does not matter now
    exported = export_subject(subject, tmp_path, settings, Ui(lambda _line: None))
    assert exported.passed
    assert not exported.findings
    meta = meta_of_onnx(tmp_path / "model.onnx")
    assert (meta.verified, meta.parity) == (False, None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
