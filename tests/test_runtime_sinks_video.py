"""Video files: runs that are killed, sizes that change, codecs, and what is said about them."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import decoded

from runtime.errors import SinkError
from runtime.frame import Frame
from runtime.sinks import open_sink
from runtime.sinks.mp4_index import become_mp4
from runtime.sources.synthetic import SyntheticSource, index_in

WRITE_UNTIL_KILLED = """
import sys, time
from runtime.sinks import open_sink
from runtime.sources.synthetic import SyntheticSource
source = SyntheticSource((96, 208))
sink = open_sink(sys.argv[1], fps=30000 / 1001, live=False)
for number in range(int(sys.argv[2])):
    sink.write(source.read())
print("written", flush=True)
time.sleep(60)
"""


def killed_after(path, frames):
    """Start a process that writes frames, and kill it (SIGKILL) while the file is unfinished.

    What it has coded is in the file by then: on a busy machine its thread that writes comes late,
    and what still waits in its pipe dies with it.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path), str(frames)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    if frames:
        wait_until_written(path.parent)
    process.kill()
    process.communicate()


def wait_until_written(folder, calm_s=0.5, within_s=30):
    """Wait until the unfinished file in a folder holds something and has not grown for a while."""
    size, until_s = 0, time.monotonic() + within_s
    while time.monotonic() < until_s:
        time.sleep(calm_s)
        before, size = size, max(part.stat().st_size for part in folder.glob(".*.part.*"))
        if size == before > 0:
            return
    raise AssertionError(f"{folder}: {size} bytes, and still growing")


def frames_of(count, size_px=(96, 208)):
    source = SyntheticSource(size_px, frames=count)
    return iter(source.read, None)


def write_all(sink, frames):
    for frame in frames:
        sink.write(frame)
    sink.close()


def test_a_killed_run_loses_at_most_a_second_of_an_mp4(tmp_path):
    path = tmp_path / "night.mp4"
    killed_after(path, 100)
    sink = open_sink(str(path))
    recovered = tmp_path / "night-recovered-1.mp4"
    assert list(tmp_path.iterdir()) == [recovered]
    indices = [index_in(image) for image in decoded(recovered)]
    assert indices == list(range(len(indices)))
    assert len(indices) >= 70
    assert f"{recovered.name}, {len(indices)} pictures" in sink.notice
    video = cv2.VideoCapture(str(recovered))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(30000 / 1001, rel=1e-9)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == len(indices)
    video.set(cv2.CAP_PROP_POS_FRAMES, 50)
    assert index_in(video.read()[1]) == 50


def test_the_unfinished_file_itself_plays(tmp_path):
    killed_after(tmp_path / "night.mp4", 60)
    (part,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.night\.mp4\.\d+\.part\.mkv", part.name)
    assert len(decoded(part)) >= 30


def test_no_file_is_written_over_by_what_is_recovered(tmp_path):
    path = tmp_path / "night.mp4"
    taken = tmp_path / "night-recovered-1.mp4"
    taken.write_bytes(b"somebody's")
    for _ in range(2):
        killed_after(path, 40)
    sink = open_sink(str(path))
    assert taken.read_bytes() == b"somebody's"
    for number in (2, 3):  # the second of the runs brought back what the first had left
        assert len(decoded(tmp_path / f"night-recovered-{number}.mp4")) >= 10
    assert "night-recovered-3.mp4" in sink.notice


def test_a_run_killed_before_its_first_frame_leaves_nothing(tmp_path):
    killed_after(tmp_path / "night.mp4", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["night.mkv", "night.avi"])
def test_matroska_and_avi_are_recovered_too(tmp_path, name):
    path = tmp_path / name
    killed_after(path, 1500)
    sink = open_sink(str(path))
    recovered = tmp_path / f"night-recovered-1{path.suffix}"
    assert recovered.name in sink.notice
    indices = [index_in(image) for image in decoded(recovered)][:-1]  # the last one may be cut off
    assert indices == list(range(len(indices)))
    assert len(indices) > 100


def test_something_else_of_such_a_name_is_kept_and_told(tmp_path):
    (tmp_path / ".night.mp4.1.part.mkv").write_bytes(b"no video at all")
    sink = open_sink(str(tmp_path / "night.mp4"))
    assert "night-recovered-1.mkv" in sink.notice
    assert (tmp_path / "night-recovered-1.mkv").read_bytes() == b"no video at all"


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_matroska_file_cut_anywhere_gives_the_whole_pictures_before(tmp_path, cut):
    path = tmp_path / "out.mkv"
    write_all(open_sink(str(path)), frames_of(60))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 1500 - cut])
    count = become_mp4(path)
    assert count > 20
    assert [index_in(image) for image in decoded(path)] == list(range(count))


def test_pictures_that_a_coder_sends_out_of_order_are_shown_in_order(tmp_path):
    """H.264 with B pictures, which OpenCV's wheel cannot write and other builds can."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    write_all(open_sink(str(tmp_path / "in.mkv?codec=mjpg")), frames_of(50))
    path = tmp_path / "b.mkv"
    coded = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", str(tmp_path / "in.mkv")),
            *("-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p", str(path)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if "Unknown encoder" in coded.stderr:
        pytest.skip("this ffmpeg has no libx264")
    before = decoded(path)
    assert become_mp4(path) == 50
    after = decoded(path)
    assert [index_in(image) for image in after] == list(range(50))
    assert np.array_equal(np.stack(before), np.stack(after))


@pytest.mark.parametrize("name", ["out.mp4", "out.mp4?codec=mjpg"])
def test_ffprobe_finds_nothing_wrong_with_a_finished_file(tmp_path, name):
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    write_all(open_sink(str(tmp_path / name), fps=30000 / 1001), frames_of(40))
    probed = subprocess.run(
        [
            *("ffprobe", "-v", "warning", "-count_frames", "-of", "csv=p=0", "-show_entries"),
            "stream=r_frame_rate,avg_frame_rate,nb_frames,nb_read_frames",
            str(tmp_path / "out.mp4"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert probed.stdout.strip() == "30000/1001,30000/1001,40,40"
    assert probed.stderr == ""


def test_a_live_frame_of_another_size_stands_between_bars_and_is_told_once(tmp_path):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path), fps=10, live=True)
    white = [np.full((*size, 3), 255, np.uint8) for size in ((96, 208), (200, 100), (96, 208))]
    for number, image in enumerate(white):
        sink.write(Frame(image, number, captured_at_ns=number * 100_000_000))
    sink.close()
    first, middle, last = decoded(path)
    assert first.shape == middle.shape == last.shape == (96, 208, 3)
    assert middle[:, 90:118].mean() > 240
    assert middle[:, :70].mean() < 10
    assert middle[:, 140:].mean() < 10
    assert last.mean() > 240
    assert "100x200" in sink.warning


def test_a_live_source_that_is_faster_than_it_says_does_not_stretch_time(tmp_path):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path), fps=10, live=True)
    for number, frame in enumerate(frames_of(100)):
        sink.write(Frame(frame.image, number, captured_at_ns=number * 50_000_000))
    sink.close()
    assert 50 <= len(decoded(path)) <= 57


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize("codec", ["mjpg", "mp4v", "xvid"])
def test_a_codec_by_name(tmp_path, suffix, codec):
    path = tmp_path / f"out{suffix}"
    sink = open_sink(f"{path}?codec={codec}", fps=25)
    assert codec in sink.description.lower()
    assert "25 fps" in sink.description
    write_all(sink, frames_of(20))
    assert [index_in(image) for image in decoded(path)] == list(range(20))


@pytest.mark.parametrize("option", ["codec=h266", "codec=", "quality=9"])
def test_what_a_video_cannot_be_asked_for_is_refused_in_one_line(tmp_path, option):
    with pytest.raises(SinkError, match=r"codec=|codec ") as refused:
        open_sink(f"{tmp_path}/out.mp4?{option}")
    assert "\n" not in str(refused.value)


def test_sound_that_is_left_out_is_said(tmp_path):
    path = str(tmp_path / "out.mp4")
    told = "without the source's sound"
    assert told in open_sink(path, sound_left_out=True).description
    assert told not in open_sink(path).description


def test_no_thread_outlives_a_video(tmp_path):
    before = threading.active_count()
    for keep in (True, False):
        sink = open_sink(str(tmp_path / "out.mp4"))
        sink.write(next(frames_of(1)))
        assert any(t.name == "p2p-video-file" for t in threading.enumerate())
        sink.close(keep)
        assert threading.active_count() == before
