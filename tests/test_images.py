"""Difficult pictures: what a camera, a scanner or a drawing program writes is read as it looks."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from pairs import jpeg_with_orientation, picture
from PIL import Image as Pillow

from trainer.errors import DataError
from trainer.images import centre_square, read_image, resize


def read_written(path, image) -> np.ndarray:
    assert cv2.imwrite(str(path), image)
    return read_image(path)


def read_of_pillow(path, picture, kind, **options) -> np.ndarray:
    written = io.BytesIO()
    picture.save(written, kind, **options)
    path.write_bytes(written.getvalue())
    return read_image(path)


def rgb_of(image: np.ndarray) -> Pillow.Image:
    return Pillow.fromarray(np.ascontiguousarray(image[..., ::-1]))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_a_grey_picture_has_three_equal_channels(tmp_path, suffix):
    grey = picture(0, 20, 30)[..., 0]
    read = read_written(tmp_path / f"grey{suffix}", grey)
    assert (read.dtype, read.shape) == (np.uint8, (20, 30, 3))
    np.testing.assert_array_equal(read[..., 0], read[..., 1])
    np.testing.assert_array_equal(read[..., 0], read[..., 2])
    assert np.abs(read[..., 0].astype(int) - grey).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits_are_scaled_to_8(tmp_path, suffix, grey):
    levels = np.array([[0, 128, 129, 257, 32767, 65406, 65407, 65535]], np.uint16)
    image = levels if grey else np.dstack([levels] * 3)
    read = read_written(tmp_path / f"deep{suffix}", image)
    assert read.dtype == np.uint8
    assert read[0, :, 1].tolist() == [0, 0, 1, 1, 127, 254, 255, 255]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_transparency_is_laid_over_white(tmp_path, depth):
    full = np.iinfo(depth).max
    image = np.zeros((1, 3, 4), depth)
    image[..., 2] = full  # red
    image[..., 3] = 0, full // 2 + 1, full
    read = read_written(tmp_path / "clip_art.png", image)
    assert read[0].tolist() == [[255, 255, 255], [127, 127, 255], [0, 0, 255]]


def test_a_transparent_webp_and_a_transparent_palette_are_laid_over_white(tmp_path):
    rgba = Pillow.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert read_of_pillow(tmp_path / "a.webp", rgba, "WEBP", lossless=True).min() == 255
    palette = Pillow.new("P", (8, 8), 3)
    palette.putpalette([0] * 768)
    assert read_of_pillow(tmp_path / "a.png", palette, "PNG", transparency=3).min() == 255
    assert read_of_pillow(tmp_path / "b.png", palette, "PNG").max() == 0


def test_palette_and_opaque_alpha_keep_their_colours(tmp_path):
    image = picture(1, 24, 32)
    opaque = np.dstack([image, np.full((24, 32), 255, np.uint8)])
    np.testing.assert_array_equal(read_written(tmp_path / "opaque.png", opaque), image)
    few = image // 64 * 64
    coloured = rgb_of(few).convert("P", palette=Pillow.Palette.ADAPTIVE, colors=256)
    read = read_of_pillow(tmp_path / "palette.png", coloured, "PNG")
    np.testing.assert_array_equal(read, np.asarray(coloured.convert("RGB"))[..., ::-1])


def test_a_cmyk_jpeg_is_read_in_its_colours(tmp_path):
    image = picture(2, 48, 48)
    cmyk = rgb_of(image).convert("CMYK")
    read = read_of_pillow(tmp_path / "print.jpg", cmyk, "JPEG", quality=98)
    assert np.abs(read.astype(int) - image).mean() < 6


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image)),
    ],
)
def test_the_orientation_that_a_phone_noted_is_applied(tmp_path, orientation, upright):
    image = picture(3, 32, 64)
    path = tmp_path / "phone.jpg"
    path.write_bytes(jpeg_with_orientation(image, orientation))
    expected = upright(image)
    read = read_image(path)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 4


def test_the_middle_of_a_photo_is_cropped_not_stretched():
    wide = np.zeros((10, 31, 3), np.uint8)
    wide[:, 10:20] = 255
    assert centre_square(wide).shape == (10, 10, 3)
    assert centre_square(wide).min() == 255
    assert centre_square(wide.transpose(1, 0, 2)).min() == 255


def test_shrinking_averages_and_growing_does_not_shift(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize(np.dstack([board.astype(np.uint8)] * 3), 16)
    assert np.abs(small.astype(int) - 127.5).max() < 1
    dot = np.zeros((16, 16, 3), np.uint8)
    dot[7:9, 7:9] = 255
    large = resize(dot, 64).astype(int)
    np.testing.assert_array_equal(large, large[::-1, ::-1])


# ---------------------------------------------------------------------------------- damaged


def refused(path) -> str:
    with pytest.raises(DataError) as caught:
        read_image(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("kept", [0, 10, 300, -10])
def test_a_truncated_picture_is_refused_wherever_it_is_cut(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert read_written(path, noise).shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[:kept])
    assert "damaged or cut short" in refused(path)


def test_a_jpeg_with_a_whole_preview_but_a_cut_picture_is_refused(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    _, preview = cv2.imencode(".jpg", noise[:16, :16])
    data = b"Exif\0\0" + preview.tobytes()
    segment = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    with_preview = whole[:2] + segment + whole[2:]
    path.write_bytes(with_preview)
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(with_preview[:-200])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_copy_that_ends_in_zeros_is_refused(tmp_path, suffix):
    path = tmp_path / f"half{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", bytes(1000), b"\x89PNG\r\n\x1a\nIEND"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "not.png"
    path.write_bytes(content)
    refused(path)


def test_a_picture_of_floats_is_refused_not_cut(tmp_path):
    path = tmp_path / "depth.tif"
    cv2.imwrite(str(path), np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert "8 or 16 bits" in refused(path)


def test_a_missing_picture_is_named(tmp_path):
    assert "could not be read" in refused(tmp_path / "nowhere.png")
