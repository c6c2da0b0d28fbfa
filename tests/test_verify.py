"""The gate passes what is the same and stops what is not."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from made_runs import write_run
from onnx import numpy_helper
from pairs import picture
from torchmetrics.functional.image import structural_similarity_index_measure

import export.job as job
from export.checkpoints import open_checkpoint
from export.to_onnx import onnx_from_generator
from export.verify import THRESHOLDS, Difference, Parity, ssim
from trainer.config import GeneratorConfig


@pytest.mark.parametrize("noise", [0, 1, 30])
def test_ssim_is_that_of_torchmetrics(noise):
    first = picture(1, 80, 96)
    random = np.random.default_rng(0)
    second = np.clip(first.astype(int) + random.integers(-noise, noise + 1, first.shape), 0, 255)
    second = second.astype(np.uint8)
    tensors = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (first, second)]
    theirs = structural_similarity_index_measure(*tensors, data_range=255.0)
    assert ssim(first, second) == pytest.approx(float(theirs), abs=1e-4)


def test_equal_pictures_have_a_finite_psnr():
    same = Difference.between(picture(1), picture(1))
    assert (same.psnr_db, same.max_abs_diff) == (100.0, 0)
    assert same.ssim == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("precision", "psnr_db", "max_abs_diff", "passed"),
    [
        ("fp32", 60.0, 1, True),
        ("fp32", 60.0, 2, False),
        ("fp16", 45.0, 3, True),
        ("fp16", 44.9, 3, False),
        ("fp16", 60.0, 4, False),
    ],
)
def test_one_bad_picture_fails_the_gate(precision, psnr_db, max_abs_diff, passed):
    good = Difference(80.0, 1.0, 0)
    bad = Difference(psnr_db, 0.99, max_abs_diff)
    finding = Parity("m.onnx", precision, "", THRESHOLDS[precision], (good, bad, good))
    assert finding.passed is passed
    assert finding.worst == 1


def test_what_was_not_run_is_neither_passed_nor_failed():
    assert Parity("m.engine", "fp16", "no GPU", THRESHOLDS["fp16"], ()).passed is None


@pytest.mark.slow
def test_an_export_that_draws_something_else_is_not_written_but_reported(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", GeneratorConfig("unet_256", ngf=4))
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("the older export")

    def subtly_wrong(generator, path, meta, opset):
        onnx_from_generator(generator, path, meta, opset)
        model = onnx.load(str(path))
        weights = next(t for t in model.graph.initializer if len(t.dims) == 4)
        values = numpy_helper.to_array(weights).copy()
        values[0] *= 1.2
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        onnx.save(model, str(path))

    monkeypatch.setattr("export.to_onnx.onnx_from_generator", subtly_wrong)
    told = []
    exported = job.export_checkpoint(
        open_checkpoint(run),
        out,
        fp16=False,
        size_px=None,
        images=None,
        build=True,
        opset=18,
        say=told.append,
    )
    assert not exported.passed
    assert exported.engine is None
    assert (out / "model.onnx").read_text() == "the older export"
    report = json.loads((out / "parity.json").read_text())
    assert report["artifacts"][0]["passed"] is False
    assert "DOES NOT draw the same picture" in told[-1]
    assert "FAILED" in (out / "parity.html").read_text()
