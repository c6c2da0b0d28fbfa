"""Measures of a picture against its target, pair by pair."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pairs import picture

from trainer.metrics import MS_SSIM_LEAST_PX, gradient_energy, ms_ssim_of, quality_of

pytestmark = pytest.mark.usefixtures("one_thread")


def noisy(image, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def test_ms_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    image = picture(1, 192, 192)
    values = [ms_ssim_of(noisy(image, sigma), image) for sigma in (0, 8, 32)]
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert values[0] > values[1] > values[2] > 0


def test_ms_ssim_forgives_fine_noise_more_than_ssim_does():
    image = picture(1, 192, 192)
    drawn = noisy(image, 16)
    assert ms_ssim_of(drawn, image) > quality_of(drawn, image).ssim + 0.1


@pytest.mark.parametrize(("side_px", "fits"), [(MS_SSIM_LEAST_PX, True), (175, False)])
def test_ms_ssim_is_left_out_where_five_scales_do_not_fit(side_px, fits):
    image = picture(2, side_px, 192)
    assert (ms_ssim_of(image, image) is not None) == fits


def test_gradient_energy_of_a_slope_is_its_squared_steepness():
    rows, columns = np.mgrid[0:20, 0:30]
    slope = np.repeat((3 * rows + 4 * columns)[..., None], 3, axis=2).astype(np.uint8)
    assert gradient_energy(slope) == pytest.approx(3**2 + 4**2)
    assert gradient_energy(np.full((20, 30, 3), 77, np.uint8)) == 0


def test_gradient_energy_sees_blur_and_noise_where_the_mean_colour_is_the_same():
    sharp = noisy(picture(3, 64, 64), 20)
    assert gradient_energy(cv2.GaussianBlur(sharp, (0, 0), 2)) < 0.2 * gradient_energy(sharp)
    assert gradient_energy(noisy(sharp, 20, seed=1)) > 1.5 * gradient_energy(sharp)
