"""What several tests need: a real model and real video files, made once."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest
from onnx_models import write_negative
from pairs import write_training_pairs

from runtime.sources.synthetic import SyntheticSource

_LONGEST = ("test_training_parallel", "test_export_generators", "test_export_cli")


def pytest_collection_modifyitems(items):
    """The files that take longest come first: else one worker is left with them at the end."""
    items.sort(key=lambda item: item.path.stem not in _LONGEST)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Optimised models that tests make do not go into the user's cache."""
    before = os.environ.get("P2P_CACHE")
    os.environ["P2P_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["P2P_CACHE"]
    else:
        os.environ["P2P_CACHE"] = before


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small are drawn many times slower by threads that wait for a busy core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def negative_onnx(tmp_path_factory):
    """A frame-in frame-out model of 104x48 pixels that gives the negative."""
    return write_negative(tmp_path_factory.mktemp("models") / "negative.onnx", (48, 104))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A video of 30 numbered pictures, 208x96, 12.5 fps, that OpenCV's writer made."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 30, 12.5)


def write_clip(path: Path, frames: int, fps: float, codec: str = "mp4v") -> Path:
    """Write a video of numbered pictures: `runtime.sources.synthetic.index_in` reads them."""
    source = SyntheticSource((96, 208), frames=frames)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (208, 96))
    while (frame := source.read()) is not None:
        writer.write(frame.image)
    writer.release()
    return path


def decoded(path: Path) -> list:
    """Every picture of a video, as OpenCV decodes it."""
    video = cv2.VideoCapture(str(path))
    images = []
    while True:
        came, image = video.read()
        if not came:
            return images
        images.append(image)


@pytest.fixture(scope="session")
def training_pairs(tmp_path_factory):
    """Pairs of 128 pixels, B = 255 - A: `train/` with eight and `val/` with three. Only read."""
    return write_training_pairs(tmp_path_factory.mktemp("pairs"), 8, 3)
