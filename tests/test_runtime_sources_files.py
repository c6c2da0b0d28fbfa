"""Files as a source: folders and patterns, several videos as one, and whether there is sound."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest
from conftest import write_clip

from runtime.errors import SourceError
from runtime.sources import open_source
from runtime.sources.sound import has_sound
from runtime.sources.synthetic import index_in

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def write_picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((16, 16, 3), level, np.uint8))


def frames_of(source):
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames


def test_a_pattern_gives_what_it_matches_in_natural_order(tmp_path):
    for name in ("10.png", "9.png", "1.png", "2.jpg", "b/3.png"):
        write_picture(tmp_path / name)
    source = open_source(str(tmp_path / "*.png"))
    assert source.frame_count == 3
    assert [frame.name for frame in frames_of(source)] == ["1.png", "9.png", "10.png"]
    for pattern, count in (("**/*.png", 4), ("[12].*", 2), ("?.png", 2), ("*", 4)):
        assert len(frames_of(open_source(str(tmp_path / pattern)))) == count


def test_pictures_of_one_name_in_several_folders_keep_the_folders_that_tell_them_apart(
    tmp_path, monkeypatch
):
    for level, name in ((10, "t/x/1.png"), (20, "t/y/1.png"), (30, "t/2.png")):
        write_picture(tmp_path / name, level)
    monkeypatch.chdir(tmp_path)
    for pattern in ("t/**/*.png", str(tmp_path / "t/**/*.png"), "t/../t/**/*.png"):
        seen = {frame.name: int(frame.image[0, 0, 0]) for frame in frames_of(open_source(pattern))}
        assert seen == {"2.png": 30, "x/1.png": 10, "y/1.png": 20}
    assert [frame.name for frame in frames_of(open_source("t/x/*.png"))] == ["1.png"]


def test_a_source_of_files_tells_which(tmp_path):
    for name in ("pics/2.png", "pics/1.png"):
        write_picture(tmp_path / name)
    for name in ("a.avi", "b.avi"):
        write_clip(tmp_path / name, 2, 25, "MJPG")
    for text, found in (
        ("pics", ["pics/1.png", "pics/2.png"]),
        ("a.avi", ["a.avi"]),
        ("*.avi", ["a.avi", "b.avi"]),
    ):
        source = open_source(str(tmp_path / text))
        assert [str(path.relative_to(tmp_path)) for path in source.paths] == found
        source.close()


def test_a_pattern_may_be_relative_and_stand_behind_file(tmp_path, monkeypatch):
    write_picture(tmp_path / "a b" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert len(frames_of(open_source("a b/*.png"))) == 1
    assert len(frames_of(open_source(f"file://{tmp_path}/a%20b/1.png"))) == 1
    assert len(frames_of(open_source(f"file://{tmp_path}/a%20b/*.png"))) == 1


def test_a_name_with_the_signs_of_a_pattern_is_a_file_first(tmp_path):
    write_picture(tmp_path / "shot[1].png", 10)
    write_picture(tmp_path / "shot1.png", 20)
    (frame,) = frames_of(open_source(str(tmp_path / "shot[1].png")))
    assert frame.image[0, 0, 0] == 10


def test_several_videos_are_one_stream_from_a_folder_or_a_pattern(tmp_path):
    for number, frames in ((1, 3), (2, 4), (10, 5)):
        write_clip(tmp_path / f"part{number}.avi", frames, 25, "MJPG")
    (tmp_path / "notes.txt").write_text("left out")
    for uri in (str(tmp_path), str(tmp_path / "*.avi"), str(tmp_path / "part*")):
        source = open_source(uri)
        assert (source.live, source.fps, source.size_px) == (False, 25, (96, 208))
        assert source.frame_count == 12
        assert "3 videos" in source.description
        frames = frames_of(source)
        assert [frame.index for frame in frames] == list(range(12))
        assert [index_in(frame.image) for frame in frames] == [
            *range(3),
            *range(4),
            *range(5),
        ]
        assert source.warning == ""


def test_a_broken_video_among_several_is_told_before_the_first_frame(tmp_path):
    write_clip(tmp_path / "1.avi", 3, 25, "MJPG")
    (tmp_path / "2.avi").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"2\.avi"):
        open_source(str(tmp_path / "*.avi"))


def test_videos_that_differ_in_rate_are_told(tmp_path):
    write_clip(tmp_path / "1.avi", 3, 25, "MJPG")
    write_clip(tmp_path / "2.avi", 3, 10, "MJPG")
    source = open_source(str(tmp_path))
    assert "differ in size or rate" in source.warning
    source.close()
    assert source.read() is None


@pytest.mark.parametrize("pattern", ["", "/*"])
def test_pictures_and_videos_together_are_refused_in_one_line(tmp_path, pattern):
    write_clip(tmp_path / "a.mp4", 2, 25)
    write_picture(tmp_path / "b.png")
    with pytest.raises(SourceError, match="1 pictures and 1 videos") as error:
        open_source(str(tmp_path) + pattern)
    assert f"{tmp_path}/*.png" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pattern_that_matches_nothing_is_told(tmp_path):
    with pytest.raises(SourceError, match="no file matches"):
        open_source(str(tmp_path / "*.png"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match="no image and no video"):
        open_source(str(tmp_path / "*.txt"))


def test_options_for_a_file_are_refused_with_the_name_alone(clip):
    with pytest.raises(SourceError, match="own size and rate") as error:
        open_source(f"{clip}?size=640x480")
    assert error.value.mend == f"write '{clip}'"


def test_the_memory_of_a_video_is_used_again_but_not_what_someone_holds(clip):
    source = open_source(str(clip))
    source.read()
    held = source.read().image
    assert len({source.read().image.ctypes.data for _ in range(20)}) <= 2
    assert index_in(held) == 1
    source.close()


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "video", "audio"),
    [
        (".mp4", "-c:v mpeg4", "-c:a aac"),
        (".mp4", "-c:v mpeg4 -movflags +faststart", "-c:a aac"),
        (".mp4", "-c:v mpeg4 -movflags +frag_keyframe+empty_moov", "-c:a aac"),
        (".mov", "-c:v mjpeg", "-c:a pcm_s16le"),
        (".mkv", "-c:v mpeg4", "-c:a aac"),
        (".webm", "-c:v libvpx -deadline realtime", "-c:a libvorbis"),
        (".avi", "-c:v mjpeg", "-c:a pcm_s16le"),
        (".flv", "-c:v flv", "-c:a aac"),
    ],
)
def test_a_file_tells_whether_it_has_sound(tmp_path, suffix, video, audio):
    make = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=duration=0.4:size=64x48:rate=25",
    ]
    sound = ["-f", "lavfi", "-i", "sine=duration=0.4:sample_rate=44100"]
    loud, silent = tmp_path / f"loud{suffix}", tmp_path / f"silent{suffix}"
    subprocess.run([*make, *sound, *video.split(), *audio.split(), str(loud)], check=True)
    subprocess.run([*make, *video.split(), str(silent)], check=True)
    for path, expected in ((loud, True), (silent, False)):
        source = open_source(str(path))
        assert source.has_sound is expected
        assert len(frames_of(source)) == 10
    data = loud.read_bytes()
    for keep in (0, 5, 20, 60, 300, len(data) // 2):  # a cut file is no reason to fall over
        (tmp_path / "cut").write_bytes(data[:keep])
        assert has_sound(tmp_path / "cut") in (True, False)


def test_what_opencv_writes_has_no_sound(clip, tmp_path):
    assert not has_sound(clip)
    (tmp_path / "notes.txt").write_text("soun auds")
    assert not has_sound(tmp_path / "notes.txt")


@pytest.mark.parametrize("uri", ["rtsp:/user:SECRET@host/x", "user:SECRET@host/x", "http:/host/x"])
def test_an_address_with_a_slip_is_told_in_one_line_without_its_password(uri):
    with pytest.raises(SourceError, match=r"no file and no address.*://") as caught:
        open_source(uri)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)
