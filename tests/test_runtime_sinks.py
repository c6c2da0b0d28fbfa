"""Sinks: what is written, that it is whole or not there, and at which rate it plays."""

import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import decoded

from runtime.errors import SinkError
from runtime.frame import Frame
from runtime.sinks import open_sink
from runtime.sinks.frame_rate import nearest_rate
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.sources.synthetic import SyntheticSource, index_in

SUFFIXES = [".mp4", ".avi", ".mkv"]


def numbered(count, size_px=(96, 208)):
    source = SyntheticSource(size_px, frames=count)
    while (frame := source.read()) is not None:
        yield frame


def write_all(sink, frames):
    for frame in frames:
        sink.write(frame)
    sink.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_video_holds_every_frame_in_order(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_all(open_sink(str(path), fps=25), numbered(40))
    assert [index_in(image) for image in decoded(path)] == list(range(40))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fps", [30000 / 1001, 24000 / 1001, 60000 / 1001, 25, 12.5, 10, 7.5])
def test_a_video_plays_at_exactly_the_rate_that_was_asked_for(tmp_path, suffix, fps):
    path = tmp_path / f"out{suffix}"
    write_all(open_sink(str(path), fps=fps), numbered(35))
    source = open_source(str(path))
    # FFmpeg's Matroska reader gives rates as fractions of numbers up to 30000.
    exact = 2997 / 50 if suffix == ".mkv" and fps > 59 else fps
    assert source.fps == pytest.approx(exact, rel=1e-9)
    assert source.frame_count == 35
    assert len(decoded(path)) == 35
    source.close()


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(29.97002997, Fraction(30000, 1001)), (25.0, Fraction(25)), (12.5, Fraction(25, 2))],
)
def test_a_float_stands_for_the_rate_that_is_meant(fps, rate):
    assert nearest_rate(fps) == rate


def test_a_live_video_repeats_pictures_where_frames_were_dropped(tmp_path):
    path = tmp_path / "out.mp4"
    times = [0, 1, 4, 5]
    frames = [
        Frame(frame.image, t, captured_at_ns=1_000_000_000 + t * 100_000_000)
        for t, frame in zip(times, numbered(4), strict=True)
    ]
    write_all(open_sink(str(path), fps=10, live=True), frames)
    assert [index_in(image) for image in decoded(path)] == [0, 1, 2, 2, 2, 3]


def test_an_unfinished_video_that_is_not_kept_leaves_nothing_and_the_older_one(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    sink = open_sink(str(path), fps=25)
    for frame in numbered(3):
        sink.write(frame)
    sink.close(keep=False)
    sink.close()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"older"


def test_a_sink_that_got_no_frame_leaves_nothing(tmp_path):
    for name in ("out.mp4", "folder/", "one.png"):
        open_sink(str(tmp_path / name)).close()
    assert list(tmp_path.iterdir()) == []


def test_a_frame_of_another_size_is_refused_and_not_silently_lost(tmp_path):
    sink = open_sink(str(tmp_path / "out.mp4"))
    sink.write(Frame(np.zeros((96, 208, 3), np.uint8), 0))
    with pytest.raises(SinkError, match="100x50"):
        sink.write(Frame(np.zeros((50, 100, 3), np.uint8), 1))
    sink.close(keep=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_odd_width_or_height_is_kept_whole_with_its_last_row_and_column_twice(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    images = np.full((10, 97, 209, 3), 40, np.uint8)
    images[:, -1] = images[:, :, -1] = 220
    sink = open_sink(str(path))
    write_all(sink, [Frame(image, number) for number, image in enumerate(images)])
    found = decoded(path)
    assert [image.shape for image in found] == [(98, 210, 3)] * 10
    assert found[9][-2:].mean() > 180
    assert found[9][:, -2:].mean() > 180
    assert found[9][:-8, :-8].mean() < 60


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size_px", [(1, 1), (1, 9), (9, 1)])
def test_a_picture_one_pixel_wide_or_high_is_refused_by_its_own_line(tmp_path, suffix, size_px):
    sink = open_sink(str(tmp_path / f"out{suffix}"))
    with pytest.raises(SinkError, match="at least 2 pixels"):
        sink.write(Frame(np.zeros((*size_px, 3), np.uint8), 0))
    sink.close(keep=False)
    assert list(tmp_path.iterdir()) == []


WRITE_UNDER_A_LIMIT = """
import sys
from runtime.errors import UserError
from runtime.sinks import open_sink
from runtime.sources.synthetic import SyntheticSource
source = SyntheticSource((96, 208), frames=90)
sink = open_sink(sys.argv[1], fps=25)
try:
    while (frame := source.read()) is not None:
        sink.write(frame)
    sink.close()
except UserError as error:
    sink.close(keep=False)
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.mkv", "folder/"])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, name):
    """`RLIMIT_FSIZE` refuses to let a file grow, as a full disk does."""
    whole = tmp_path / "whole"
    write_all(open_sink(str(whole / name), fps=25), numbered(90))
    size = max(path.stat().st_size for path in whole.iterdir())
    for limit in (100, size // 2, size - 2000):
        path = tmp_path / str(limit) / name
        ran = subprocess.run(
            [sys.executable, "-c", WRITE_UNDER_A_LIMIT, f"{path}{'/' * name.endswith('/')}"],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(
                resource.RLIMIT_FSIZE, (limit, limit)
            ),
        )
        assert ran.returncode == 1, limit
        assert "disk" in ran.stderr
        assert ran.stderr.count("\n") == 1
        left = [path for path in (tmp_path / str(limit)).rglob("*") if path.is_file()]
        # Images before the one that did not fit are whole, and stay.
        assert all(path.suffix == ".png" and cv2.imread(str(path)) is not None for path in left)


def test_a_folder_keeps_the_sources_names_or_counts(tmp_path):
    image = np.full((16, 16, 3), 9, np.uint8)
    write_all(open_sink(str(tmp_path / "out")), [Frame(image, 0, name="a.png"), Frame(image, 12)])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.png",
        "frame_000012.png",
    ]
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "a.png")), image)


def test_a_second_run_into_a_folder_goes_on_behind_the_first_and_says_so(tmp_path):
    first, second = (np.full((8, 8, 3), value, np.uint8) for value in (10, 200))
    sink = open_sink(str(tmp_path / "shots"))
    assert sink.notice == ""
    write_all(sink, [Frame(first, number) for number in range(3)])
    sink = open_sink(str(tmp_path / "shots"))
    assert "frame_000003.png" in sink.notice
    write_all(
        sink, [Frame(second, 0), Frame(second, 1), Frame(second, 2, name="frame_000001.png")]
    )
    values = {path.name: cv2.imread(str(path)).mean() for path in (tmp_path / "shots").iterdir()}
    assert values == {
        "frame_000000.png": 10,
        "frame_000001.png": 200,  # the source's own name, as ever
        "frame_000002.png": 10,
        "frame_000003.png": 200,
        "frame_000004.png": 200,
    }


@pytest.mark.parametrize("uri", ["out/", "out", "existing.mp4"])
def test_a_slash_no_suffix_or_an_existing_folder_mean_a_folder(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    Path("existing.mp4").mkdir()
    write_all(open_sink(uri), [Frame(np.zeros((4, 4, 3), np.uint8), 0)])
    assert (Path(uri) / "frame_000000.png").is_file()


def test_an_image_file_takes_one_picture_and_refuses_a_second(tmp_path):
    path = tmp_path / "night.png"
    write_all(open_sink(str(path)), [Frame(np.zeros((4, 4, 3), np.uint8), 0)])
    assert cv2.imread(str(path)).shape == (4, 4, 3)
    path.unlink()
    sink = open_sink(str(path))
    with pytest.raises(SinkError, match="night/"):
        write_all(sink, [Frame(np.zeros((4, 4, 3), np.uint8), n) for n in range(2)])
    sink.close(keep=False)
    assert not path.exists()


@pytest.mark.parametrize("name", ["file/out.mp4", "file/sub/", "file/out.png", "file"])
def test_a_place_that_cannot_be_written_to_is_refused_before_the_first_frame(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="could not be written"):
        open_sink(f"{tmp_path}/{name}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["out.mp4", "sub/out.mkv", "sub/", "out.png"])
def test_a_file_system_that_takes_no_file_is_refused_before_the_first_frame(name):
    """`/proc` takes none, not even root's."""
    with pytest.raises(SinkError, match="could not be written"):
        open_sink(f"/proc/{name}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_before_the_first_frame(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="could not be written"):
        open_sink(f"{tmp_path}/out.mp4")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("uri", ["", " ", "file://", ".mp4", "sub/.png"])
def test_a_sink_without_a_name_is_refused(uri):
    with pytest.raises(SinkError, match="no name"):
        open_sink(uri)


def test_a_name_that_no_file_system_takes_is_refused(tmp_path):
    with pytest.raises(SinkError, match="bytes long"):
        open_sink(f"{tmp_path}/{'n' * 250}.mp4")


def test_a_folder_where_a_file_is_meant_is_refused(tmp_path):
    with pytest.raises(SinkError, match="is a folder"):
        VideoSink(tmp_path)


@pytest.mark.parametrize("uri", ["out.gif", "rtmp://host/app", "out.mp4.txt"])
def test_an_unknown_sink_is_refused_with_what_is_accepted(uri):
    with pytest.raises(SinkError, match=r"display://0.*none"):
        open_sink(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "rtmp://user:SECRET@host/live",
        "rtsp:/user:SECRET@host/live",
        "user:SECRET@host/live",
        "user:SECRET@host/live.xyz",
    ],
)
def test_a_sink_that_is_none_is_told_without_its_password_and_makes_no_folder(
    tmp_path, monkeypatch, uri
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError) as caught:
        open_sink(uri)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_scheme_of_a_sink_may_be_in_capitals(tmp_path):
    open_sink(f"FILE://{tmp_path}/x.png").close(keep=False)
    with pytest.raises(SinkError, match="no address to send to"):
        open_sink("RTSP://user:SECRET@")
