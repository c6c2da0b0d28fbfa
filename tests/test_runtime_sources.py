"""Sources: what opens, in which order frames come, and how a broken one is told."""

import threading

import cv2
import numpy as np
import pytest
from conftest import write_clip

from runtime.errors import SourceError
from runtime.images import natural_key
from runtime.sources import open_source
from runtime.sources.synthetic import index_in


def frames_of(source):
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames


def test_a_video_gives_every_frame_in_order_and_knows_itself(clip):
    source = open_source(str(clip))
    assert (source.live, source.fps, source.size_px, source.frame_count) == (
        False,
        12.5,
        (96, 208),
        30,
    )
    frames = frames_of(source)
    assert [frame.index for frame in frames] == list(range(30))
    assert [index_in(frame.image) for frame in frames] == list(range(30))
    assert source.warning == ""


def test_a_frame_is_its_takers_own(clip):
    source = open_source(str(clip))
    first = source.read().image
    before = first.copy()
    source.read()
    assert np.array_equal(first, before)
    source.close()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_cut_off_mp4_is_refused(clip, tmp_path, capfd, keep):
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(SourceError, match=r"cut\.mp4"):
        open_source(str(path))
    assert capfd.readouterr().err == ""


def test_a_video_that_stops_before_the_frames_it_claims_says_so(tmp_path, capfd):
    data = write_clip(tmp_path / "whole.avi", 30, 25, "MJPG").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: len(data) // 2])
    source = open_source(str(path))
    frames = frames_of(source)
    assert 0 < len(frames) < 30
    assert f"claims 30 frames, but only {len(frames)}" in source.warning
    assert capfd.readouterr().err == ""


def test_images_come_in_natural_order_with_their_names(tmp_path):
    for name in ("10.png", "9.jpg", "1.bmp", "2.webp", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).touch()
        else:
            cv2.imwrite(str(tmp_path / name), np.full((16, 16, 3), 77, np.uint8))
    source = open_source(str(tmp_path))
    assert (source.live, source.fps, source.frame_count) == (False, None, 4)
    assert [frame.name for frame in frames_of(source)] == ["1.bmp", "2.webp", "9.jpg", "10.png"]


def test_names_that_mix_numbers_and_letters_can_be_sorted():
    names = ["b2", "2b", "a10", "a9", "A1", "", "10", "9"]
    assert sorted(names, key=natural_key) == ["", "2b", "9", "10", "A1", "a9", "a10", "b2"]


def test_grey_and_transparent_pictures_become_bgr(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((16, 16), np.uint8))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.zeros((16, 16, 4), np.uint8))
    assert all(frame.image.shape == (16, 16, 3) for frame in frames_of(open_source(str(tmp_path))))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.995])
def test_a_cut_off_image_is_refused_by_name(tmp_path, capfd, suffix, keep):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceError, match=rf"cut\{suffix}"):
        frames_of(open_source(str(tmp_path)))
    assert capfd.readouterr().err == ""


def test_a_cut_off_jpeg_is_told_before_the_first_frame(tmp_path):
    data = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "1.jpg").write_bytes(data)
    (tmp_path / "2.jpg").write_bytes(data[:-30])
    with pytest.raises(SourceError, match=r"2\.jpg"):
        open_source(str(tmp_path))


def test_a_jpeg_whose_preview_is_whole_and_whose_picture_is_cut_off_is_refused(tmp_path):
    small = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    large = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    preview = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    (tmp_path / "whole.jpg").write_bytes(large[:2] + preview + large[2:])
    assert len(frames_of(open_source(str(tmp_path / "whole.jpg")))) == 1
    (tmp_path / "cut.jpg").write_bytes(large[:2] + preview + large[2:-40])
    with pytest.raises(SourceError, match=r"cut\.jpg"):
        open_source(str(tmp_path / "cut.jpg"))


def test_a_jpeg_with_bytes_after_its_end_is_whole(tmp_path):
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    (tmp_path / "phone.jpg").write_bytes(data + b"trailer of a phone")
    assert len(frames_of(open_source(str(tmp_path / "phone.jpg")))) == 1


@pytest.mark.parametrize("size_px", [(96, 208), (480, 640), (33, 53)])
def test_the_synthetic_stream_carries_its_index_in_its_pixels(size_px):
    height, width = size_px
    source = open_source(f"synthetic://?size={width}x{height}&frames=70")
    frames = frames_of(source)
    assert not source.live
    assert [index_in(frame.image) for frame in frames] == list(range(70))
    assert all(frame.image.shape == (height, width, 3) for frame in frames)
    assert index_in(255 - frames[69].image) == 69
    jpeg = cv2.imencode(".jpg", frames[69].image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    assert index_in(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == 69


def test_the_synthetic_stream_moves():
    first, second = frames_of(open_source("synthetic://?frames=2"))
    assert np.mean(first.image != second.image) > 0.2


def test_a_paced_synthetic_stream_is_live_and_not_ahead_of_its_time():
    source = open_source("synthetic://?fps=100&frames=6")
    assert (source.live, source.fps) == (True, 100.0)
    frames = frames_of(source)
    assert frames[5].captured_at_ns - frames[0].captured_at_ns >= 4 * 10_000_000


def test_options_given_by_the_caller_hold_where_the_uri_says_nothing():
    source = open_source("synthetic://?frames=1", size_px=(20, 60), fps=50)
    assert (source.size_px, source.fps) == ((20, 60), 50)


@pytest.mark.parametrize(
    "uri",
    [
        "synthetic://?size=640",
        "synthetic://?fps=fast",
        "synthetic://?frames=0",
        "synthetic://?fps=-1",
        "synthetic://?size=0x10",
        "synthetic://?speed=3",
        "synthetic://?frames",
        "0?frames=3",
    ],
)
def test_options_that_make_no_sense_are_refused(uri):
    with pytest.raises(SourceError, match="size=640x480"):
        open_source(uri)


@pytest.mark.parametrize("uri", ["97", "/dev/video97", "97?size=640x480"])
def test_a_camera_that_is_not_there_is_one_clear_line(uri, capfd):
    with pytest.raises(SourceError, match=r"camera|/dev/video97"):
        open_source(uri)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "uri", ["nothing.mp4", "ftp://host/clip.mp4", "file:///nothing", "synthetic://x", ""]
)
def test_what_is_not_there_or_not_known_is_refused_with_what_is_accepted(uri, tmp_path):
    with pytest.raises(SourceError, match="synthetic://"):
        open_source(uri and str(tmp_path / uri) if uri == "nothing.mp4" else uri)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no image"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("options", [{"size_px": (0, 640)}, {"size_px": (480, -1)}, {"fps": 0}])
def test_sizes_and_rates_that_are_not_above_zero_are_refused_for_every_kind(clip, options):
    for uri in (str(clip), "0", "screen://", "gst://videotestsrc", "-", "synthetic://"):
        with pytest.raises(SourceError, match="above zero"):
            open_source(uri, **options)


@pytest.mark.parametrize(
    "uri",
    [
        "csi://x",
        "csi://0?flip=9",
        "csi://0?size=0x720",
        "screen://-1",
        "screen://1?region=0,0,0x10",
        "screen://1?region=-5,0,10x10",
        "screen://1?size=640x480",
        "-?size=640x480&live=maybe",
        "-?format=bgr24",
        "-?size=4x4&format=yuv9",
        "synthetic://?fps=nan",
        "synthetic://?fps=inf",
        "synthetic://?size=１x１",
    ],
)
def test_an_address_that_makes_no_sense_is_one_line(uri):
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://anna:geheim@host/clip.mp4",
        "gst://rtspsrc location=rtsp://anna:ge@heim@host/x user-pw='geheim' ! 'unclosed",
        "csi://anna:geheim@0",
        "synthetic://?password=geheim",
        "screen://1?token=geheim",
    ],
)
def test_no_refusal_tells_a_password(uri):
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert "heim" not in str(error.value)


def test_the_synthetic_stream_uses_its_memory_again_but_not_what_someone_holds():
    source = open_source("synthetic://?size=640x480")
    held = source.read().image
    assert len({source.read().image.ctypes.data for _ in range(20)}) <= 2
    assert index_in(held) == 0


def test_interrupt_ends_a_synthetic_stream_that_waits_for_its_time():
    source = open_source("synthetic://?fps=0.01")
    source.read()
    threading.Timer(0.1, source.interrupt).start()
    assert source.read() is None


def test_what_is_no_video_is_refused_without_noise(tmp_path, capfd):
    (tmp_path / "notes.mp4").write_text("hello " * 100)
    with pytest.raises(SourceError, match=r"notes\.mp4"):
        open_source(str(tmp_path / "notes.mp4"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "uri",
    [
        "synthetic://?size=1000000x1000000",
        "synthetic://?size=16385x2",
        "-?size=99999x480&format=bgr24",
        "synthetic://?fps=1e9",
    ],
)
def test_absurd_sizes_and_rates_are_one_line(uri):
    with pytest.raises(SourceError, match="cannot read the options") as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)


def test_an_absurd_size_that_is_asked_beside_the_address_is_one_line():
    with pytest.raises(SourceError, match="up to 16384"):
        open_source("synthetic://", size_px=(480, 1 << 20))
    with pytest.raises(SourceError, match="up to 1000"):
        open_source("synthetic://", fps=1e6)
