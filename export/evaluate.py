"""A model, whatever its form, measured on held-out pairs beside two trivial ones."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.checkpoints import open_checkpoint
from export.norm_stats import BATCH, choose_norm_stats, with_batch_statistics
from export.subjects import torch_draws
from export.ui import Say
from export.verify import Draw
from runtime.errors import ModelError
from runtime.translator import Translator
from trainer.data import open_pairs
from trainer.metrics import Quality, mean_quality, quality_of


def evaluate_model(
    model: Path, data: str, direction: str | None, count: int | None, say: Say
) -> dict[str, Quality]:
    """Measure a model on pairs, at the size that it works at.

    Args:
        model: a run, a checkpoint, an ONNX file or an engine.
        data: a folder of pairs, or `scenes`.
        direction: `AtoB` or `BtoA`; None: as the checkpoint was trained, else AtoB.
        count: at most so many pairs.
        say: is told what was opened.

    Returns:
        Rows `model`, `identity` (the input handed back) and `mean_target` (the mean of these
        very targets handed back: the best that a constant picture can do for mean square error).

    Raises:
        ModelError, CheckpointError, DataError: what was named is not there or damaged.
    """
    with ExitStack() as stack:
        if model.suffix.lower() in (".onnx", ".engine"):
            translator = stack.enter_context(Translator.load(model))
            draw: Draw = translator.__call__
            height, width = translator.meta.frame_size_px
            if height != width:
                raise ModelError(
                    f"{model} works at {height}x{width}",
                    "a square size, since pairs are resized to a square",
                    "evaluate the checkpoint, or export it without --imgsz",
                )
            size_px = height
            say(f"{model}: {translator.description}")
        else:
            checkpoint = open_checkpoint(model)
            generator = checkpoint.generator
            choice = choose_norm_stats(
                generator,
                None,
                foreign=checkpoint.foreign,
                pairs=[],
                draws=lambda generator: torch_draws(checkpoint, generator),
            )
            if choice.stats == BATCH:
                generator = with_batch_statistics(generator)
            draw = torch_draws(checkpoint, generator)
            size_px = checkpoint.size_px
            direction = direction or checkpoint.direction
            say(f"{checkpoint.path}: {checkpoint.description}; PyTorch, FP32")
            if choice.why:
                say(choice.why)
        pairs = open_pairs(data, direction or "AtoB")
        total = min(count or len(pairs), len(pairs))
        say(f"{total} pairs of {pairs.description}, {size_px}x{size_px}")
        mean_target = _mean([pairs.pair(i, size_px)[1] for i in range(total)])
        rows: dict[str, list[Quality]] = {"model": [], "identity": [], "mean_target": []}
        for index in range(total):
            source, target = pairs.pair(index, size_px)
            rows["model"].append(quality_of(draw(source), target))
            rows["identity"].append(quality_of(source, target))
            rows["mean_target"].append(quality_of(mean_target, target))
    return {name: mean_quality(qualities) for name, qualities in rows.items()}


def _mean(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    total = np.zeros(images[0].shape, np.float64)
    for image in images:
        total += image
    return np.rint(total / len(images)).astype(np.uint8)
