"""Batches can be resumed, shared between processes, and hold pairs cropped and mirrored alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pairs import write_photos, write_side_by_side

from trainer.batches import AugmentedPairs, StepSampler, batches, to_unit_range
from trainer.config import GeneratorConfig, TrainConfig
from trainer.data import Pairs, drop_damaged, open_data, open_pairs

SMALL = TrainConfig(
    generator=GeneratorConfig("unet_128"), load_size=150, crop_size=128, batch_size=2
)


class Memory:
    """Pairs that are in memory already: what any `Pairs` of one's own may be."""

    description = "memory"

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        return self._pairs.name(index)

    def pair(self, index: int, size_px: int):
        return self._pairs.pair(index, size_px)


def test_crop_and_mirror_are_the_same_for_both_halves(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 2, 150, 150)), "AtoB")
    samples = AugmentedPairs(pairs, SMALL, len(pairs))
    seen = set()
    for epoch in range(8):
        both = samples[(epoch, 0)].numpy().astype(int)
        assert both.shape == (6, 128, 128)
        np.testing.assert_array_equal(both[:3], 255 - both[3:])
        seen.add(both.tobytes())
    assert len(seen) > 4, "crops and mirrors hardly vary"


def test_a_sample_is_the_crop_that_its_seed_epoch_and_index_say(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 2, 150, 150)), "AtoB")
    samples = AugmentedPairs(pairs, SMALL, len(pairs))
    mirrored = 0
    for epoch in range(8):
        random = np.random.default_rng((SMALL.seed, epoch, 1))
        top, left = random.integers(0, 150 - 128 + 1, 2)
        both = np.concatenate([half[..., ::-1] for half in pairs.pair(1, 150)], axis=2)
        both = both[top : top + 128, left : left + 128]
        if random.random() < 0.5:
            both = both[:, ::-1]
            mirrored += 1
        np.testing.assert_array_equal(samples[(epoch, 1)].numpy(), both.transpose(2, 0, 1))
    assert 0 < mirrored < 8


def test_pairs_of_ones_own_give_the_same_samples(tmp_path):
    pairs = open_pairs(str(write_side_by_side(tmp_path, 2)), "AtoB")
    keys = [(0, 0), (0, 1), (3, 1)]
    mine = AugmentedPairs(Memory(pairs), SMALL, 2).__getitems__(keys)
    assert torch.equal(mine, AugmentedPairs(pairs, SMALL, 2).__getitems__(keys))
    assert mine.shape == (3, 6, 128, 128)


def test_a_made_input_is_cropped_where_its_photo_is(tmp_path):
    pairs = open_pairs(str(write_photos(tmp_path, 1, 150, 200)), "AtoB", "colourise")
    for epoch in range(4):
        both = AugmentedPairs(pairs, SMALL, 1)[(epoch, 0)].numpy()
        bgr = np.ascontiguousarray(both[[5, 4, 3]].transpose(1, 2, 0))
        np.testing.assert_array_equal(both[0], cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))


def test_network_sees_rgb(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 2] = 255  # BGR
    cv2.imwrite(str(tmp_path / "1.png"), np.hstack([red, red]))
    sample = AugmentedPairs(open_pairs(str(tmp_path), "AtoB"), SMALL, 1)[(0, 0)]
    assert sample[0].min() == 255
    assert sample[2].max() == 0


def test_drawn_scenes_never_repeat():
    config = TrainConfig(generator=GeneratorConfig("unet_128"), crop_size=128, epoch_scenes=2)
    samples = AugmentedPairs(open_data("scenes", "AtoB").train, config, config.epoch_scenes)
    drawn = {samples[key].numpy().tobytes() for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    assert len(drawn) == 4


# ------------------------------------------------------------------------------------- sampler


def test_a_resumed_sampler_goes_on_where_an_uncut_one_would_be():
    whole = list(StepSampler(10, 3, seed=4, first_step=0, last_step=12))
    rest = list(StepSampler(10, 3, seed=4, first_step=5, last_step=12))
    assert rest == whole[5:]
    first_epoch = [index for batch in whole[:3] for _, index in batch]
    assert len(set(first_epoch)) == 9
    assert [index for batch in whole[3:6] for _, index in batch] != first_epoch


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("first_step", [0, 3])
def test_processes_together_see_what_a_single_one_would_see_in_the_same_order(
    accumulate, first_step
):
    steps = {"first_step": first_step, "last_step": 7, "accumulate": accumulate}
    single = StepSampler(40, 2 * 2, 5, **steps)
    ranks = [StepSampler(40, 2, 5, **steps, rank=rank, world=2) for rank in range(2)]
    assert {rank.steps_per_epoch for rank in ranks} == {single.steps_per_epoch}
    joined = [a + b for a, b in zip(*ranks, strict=True)]
    assert joined == list(single)
    assert len(joined) == len(single) == len(ranks[0]) == (7 - first_step) * accumulate


def test_a_step_of_accumulated_batches_sees_what_one_large_batch_would_see():
    large = list(StepSampler(50, 12, 5, 0, 9))
    parts = list(StepSampler(50, 3, 5, 0, 9, accumulate=4))
    joined = [[key for part in parts[i : i + 4] for key in part] for i in range(0, 36, 4)]
    assert joined == large


@pytest.mark.parametrize(
    ("samples", "batch_size", "world", "accumulate"),
    [(3, 8, 1, 1), (5, 4, 1, 2), (5, 4, 3, 1), (1, 1, 4, 2), (3, 2, 2, 2)],
)
def test_few_samples_still_make_a_step_with_equal_batches_everywhere(
    samples, batch_size, world, accumulate
):
    options = {"world": world, "accumulate": accumulate}
    ranks = [StepSampler(samples, batch_size, 0, 0, 3, rank=r, **options) for r in range(world)]
    taken = [list(rank) for rank in ranks]
    assert {rank.steps_per_epoch for rank in ranks} == {1}
    sizes = {len(batch) for batches_of_one in taken for batch in batches_of_one}
    assert sizes == {min(batch_size, max(1, samples // (world * accumulate)))}
    assert {len(batches_of_one) for batches_of_one in taken} == {3 * accumulate}
    indices = {index for one in taken for batch in one for _, index in batch}
    assert indices <= set(range(samples))


# -------------------------------------------------------------------------------------- loader


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_samplers_order_and_hold_its_samples(tmp_path, workers):
    # Large pictures: OpenCV uses its own threads on them before the workers are forked.
    folder = write_side_by_side(tmp_path, 6, 600, 600)
    pairs = drop_damaged(open_pairs(str(folder), "AtoB"), SMALL.load_size, 0.0, pytest.fail)
    sampler = StepSampler(6, 2, 0, 1, 8)
    samples = AugmentedPairs(pairs, SMALL, 6)
    came = list(batches(pairs, SMALL, sampler, 6, workers))
    assert len(came) == 7
    for keys, batch in zip(sampler, came, strict=True):
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, torch.stack([samples[key] for key in keys]))


def test_workers_share_what_was_read_before(tmp_path):
    folder = write_side_by_side(tmp_path, 4)
    pairs = drop_damaged(open_pairs(str(folder), "AtoB"), SMALL.load_size, 0.0, pytest.fail)
    for path in folder.iterdir():
        path.unlink()
    assert len(list(batches(pairs, SMALL, StepSampler(4, 2, 0, 0, 4), 4, workers=1))) == 4


def test_workers_resize_large_pictures_that_are_not_in_the_cache(tmp_path):
    folder = write_side_by_side(tmp_path, 4, 900, 900)
    pairs = open_pairs(str(folder), "AtoB")
    pairs.pair(0, 64)  # at another size: starts OpenCV's threads in this process
    assert len(list(batches(pairs, SMALL, StepSampler(4, 2, 0, 0, 4), 4, workers=2))) == 4


def test_bytes_become_minus_one_to_one():
    batch = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 6, 1, 1)
    batch[:, 3:] = 255 - batch[:, 3:]
    source, target = to_unit_range(batch, torch.device("cpu"))
    assert source.dtype == torch.float32
    assert (source.min(), source.max()) == (-1, 1)
    torch.testing.assert_close(source, batch[:, :3] / 127.5 - 1)
    torch.testing.assert_close(target, -source)
    assert batch.dtype == torch.uint8
    assert batch[0, 0, 0, 1] == 1, "the batch itself was changed"


@pytest.mark.parametrize("channels_last", [False, True])
def test_dtype_and_memory_layout_are_as_asked(channels_last):
    batch = torch.randint(0, 256, (2, 6, 8, 8), dtype=torch.uint8)
    plain = to_unit_range(batch, torch.device("cpu"))
    asked = to_unit_range(batch, torch.device("cpu"), torch.bfloat16, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for half, reference in zip(asked, plain, strict=True):
        assert half.dtype == torch.bfloat16
        assert half.is_contiguous(memory_format=layout)
        assert torch.equal(half, reference.to(torch.bfloat16))
