"""p2p-live as a user meets it: its words, its exit codes, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import decoded
from onnx_models import write_float_image_model, write_negative

from runtime.cli import _stopped_by_signals, live, one_line_errors
from runtime.hud import Hud
from runtime.sources.synthetic import index_in

REPOSITORY = Path(__file__).parent.parent
DRIVE = REPOSITORY.parent / "shared" / "data" / "video" / "solidWhiteRight.mp4"
LIVE = [sys.executable, "-c", "from runtime.cli import live; live(prog_name='p2p-live')"]


@pytest.fixture
def p2p_live(tmp_path, monkeypatch):
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(live, [str(arg) for arg in args])


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_video_becomes_a_video_with_every_frame(p2p_live, negative_onnx, clip):
    ran = p2p_live(
        negative_onnx, "--source", clip, "--sink", "night.mp4", "--stats", "stats.jsonl"
    )
    assert ran.exit_code == 0, ran.output
    assert [index_in(image) for image in decoded(Path("night.mp4"))] == list(range(30))
    last = read_lines("stats.jsonl")[-1]
    assert last["final"] is True
    assert (last["frames_in"], last["frames_out"], last["dropped"]) == (30, 30, 0)
    for stage in ("capture", "in", "infer", "out", "sink", "age"):
        assert last[f"{stage}_p50_ms"] <= last[f"{stage}_p99_ms"]
    assert "30 frames in, 30 out, 0 dropped" in ran.stdout


@pytest.mark.skipif(not DRIVE.is_file(), reason="needs ../shared/data")
def test_a_real_drive_keeps_its_221_frames_rate_and_duration(p2p_live, negative_onnx):
    ran = p2p_live(negative_onnx, "--source", DRIVE, "--sink", "out.mp4", "--stats", "s.jsonl")
    assert ran.exit_code == 0, ran.output
    last = read_lines("s.jsonl")[-1]
    assert (last["frames_in"], last["frames_out"], last["dropped"]) == (221, 221, 0)
    before, after = cv2.VideoCapture(str(DRIVE)), cv2.VideoCapture("out.mp4")
    for what in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH):
        assert after.get(what) == before.get(what)
    # In order: each translated frame is the negative of its own source frame.
    for image in decoded(Path("out.mp4")):
        original = before.read()[1]
        small = (
            cv2.resize(picture, (12, 8), interpolation=cv2.INTER_AREA)
            for picture in (image, original)
        )
        translated, source = small
        assert np.abs(translated.astype(int) + source - 255).mean() < 12
    assert not before.read()[0]


def test_it_says_what_was_chosen(p2p_live, negative_onnx):
    ran = p2p_live(
        negative_onnx, "--source", "synthetic://?frames=2&size=208x96", "--sink", "none"
    )
    for told in ("ONNX Runtime", "synthetic test stream, 208x96", "sink    none", "throughput"):
        assert told in ran.stdout
    assert ran.stderr == ""


def test_side_by_side_is_twice_as_wide(p2p_live, negative_onnx, clip):
    ran = p2p_live(negative_onnx, "--source", clip, "--sink", "both.avi", "--view", "side-by-side")
    assert ran.exit_code == 0, ran.output
    images = decoded(Path("both.avi"))
    assert len(images) == 30
    assert images[0].shape == (96, 416, 3)


def test_frames_and_fps_are_kept_to(p2p_live, negative_onnx, clip):
    ran = p2p_live(
        negative_onnx, "--source", clip, "--sink", "o.mp4", "--frames", 5, "--fps", "29.97003"
    )
    assert ran.exit_code == 0, ran.output
    video = cv2.VideoCapture("o.mp4")
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(30000 / 1001, rel=1e-9)


def test_images_become_images_of_the_same_names_and_sizes(p2p_live, negative_onnx, tmp_path):
    (tmp_path / "in").mkdir()
    for name, size_px in (("b.png", (20, 30)), ("a.png", (64, 50))):
        cv2.imwrite(str(tmp_path / "in" / name), np.full((*size_px, 3), 55, np.uint8))
    ran = p2p_live(negative_onnx, "--source", "in", "--sink", "out/")
    assert ran.exit_code == 0, ran.output
    assert np.array_equal(cv2.imread("out/b.png"), np.full((20, 30, 3), 200, np.uint8))
    assert np.array_equal(cv2.imread("out/a.png"), np.full((64, 50, 3), 200, np.uint8))


def test_pictures_of_one_name_in_two_folders_become_two_pictures(
    p2p_live, negative_onnx, tmp_path
):
    for folder, level in (("x", 55), ("y", 100)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        cv2.imwrite(f"in/{folder}/1.png", np.full((20, 30, 3), level, np.uint8))
    ran = p2p_live(negative_onnx, "--source", "in/**/*.png", "--sink", "out/")
    assert ran.exit_code == 0, ran.output
    assert [cv2.imread(f"out/{name}/1.png")[0, 0, 0] for name in "xy"] == [200, 155]


@pytest.mark.parametrize(
    "args",
    [
        ["--source", "clip.mp4", "--sink", "clip.mp4?codec=mp4v"],
        ["--source", "clip.mp4", "--sink", "none", "--stats", "clip.mp4"],
        ["--source", "clip.mp4", "--sink", "none", "--stats", "m.onnx"],
        ["--source", "clip.mp4", "--source", "b=synthetic://?frames=2", "--sink", "{source}.mp4"],
    ],
)
def test_no_file_of_the_user_is_written_over(p2p_live, clip, tmp_path, args):
    model, source = write_negative(tmp_path / "m.onnx"), tmp_path / "clip.mp4"
    source.write_bytes(clip.read_bytes())
    before = model.read_bytes(), source.read_bytes()
    ran = p2p_live("m.onnx", *args)
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1), ran.output
    assert "would write over the " in ran.stderr
    assert (model.read_bytes(), source.read_bytes()) == before


@pytest.mark.parametrize(
    ("args", "seen"),
    [
        (["--sink", "{source}.mp4"], [1, 1]),
        (["--sink", "all.mp4", "--grid"], [1]),
    ],
)
def test_each_stream_has_a_hud_of_its_own_and_a_grid_one(
    p2p_live, negative_onnx, monkeypatch, args, seen
):
    """The HUD draws as ever; what is watched is which HUD gets pictures of which size."""
    huds = {}
    draw = Hud.__call__

    def watched(self, image, frame):
        huds.setdefault((image.shape[1], image.shape[0]), set()).add(id(self))
        draw(self, image, frame)

    monkeypatch.setattr(Hud, "__call__", watched)
    sources = ["--source", "a=synthetic://?size=96x64&frames=4"]
    sources += ["--source", "b=synthetic://?size=160x120&frames=4"]
    ran = p2p_live(negative_onnx, *sources, *args, "--hud")
    assert ran.exit_code == 0, ran.output
    assert [len(ids) for ids in huds.values()] == seen
    assert len(set().union(*huds.values())) == len(seen)


def test_one_image_becomes_one_image(p2p_live, negative_onnx, tmp_path):
    cv2.imwrite(str(tmp_path / "day.png"), np.full((9, 9, 3), 1, np.uint8))
    assert p2p_live(negative_onnx, "--source", "day.png", "--sink", "night.png").exit_code == 0
    assert np.all(cv2.imread("night.png") == 254)


def test_without_a_model_the_newest_run_is_taken_and_named(p2p_live, tmp_path):
    for age_s, name in ((100, "old"), (0, "new")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        path = write_negative(tmp_path / "runs" / name / "model.onnx")
        os.utime(path, (time.time() - age_s,) * 2)
    ran = p2p_live("--source", "synthetic://?frames=1", "--sink", "none")
    assert ran.exit_code == 0, ran.output
    assert "runs/new/model.onnx" in ran.stdout
    assert (
        "runs/old/model.onnx"
        in p2p_live("runs/old", "--source", "synthetic://?frames=1", "--sink", "none").stdout
    )


def test_a_video_that_ends_early_is_told(p2p_live, negative_onnx, tmp_path):
    from conftest import write_clip

    data = write_clip(tmp_path / "whole.avi", 30, 25, "MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    ran = p2p_live(negative_onnx, "--source", "cut.avi", "--sink", "none")
    assert ran.stderr.startswith("warning: cut.avi claims 30 frames, but only")


def files_below(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nothing.onnx", "--source", "good.png", "--sink", "out.mp4"], "no such model"),
        (["notes.txt", "--source", "good.png", "--sink", "out.mp4"], ".onnx or .engine"),
        (["notes.onnx", "--source", "good.png", "--sink", "out.mp4"], "not an ONNX file"),
        (["cut.onnx", "--source", "good.png", "--sink", "out.mp4"], "cut.onnx"),
        (["float.onnx", "--source", "good.png", "--sink", "out.mp4"], "p2p-export FILE.onnx"),
        (["--source", "good.png", "--sink", "out.mp4"], "p2p-train"),
        (["good.onnx", "--source", "nothing.mp4", "--sink", "out.mp4"], "no such source"),
        (["good.onnx", "--source", "cut.jpg", "--sink", "out.mp4"], "cut.jpg"),
        (["good.onnx", "--source", "cut.mp4", "--sink", "out.mp4"], "cut.mp4"),
        (["good.onnx", "--source", "notes.mp4", "--sink", "out.mp4"], "notes.mp4"),
        (["good.onnx", "--source", "empty", "--sink", "out.mp4"], "no image"),
        (["good.onnx", "--source", "97", "--sink", "out.mp4"], "/dev/video97"),
        (["good.onnx", "--source", "ftp://x/y", "--sink", "out.mp4"], "unknown source"),
        (["good.onnx", "--source", "sizes", "--sink", "out.mp4"], "different sizes"),
        (["good.onnx", "--source", "sizes", "--sink", "one.png"], "one/"),
        (["good.onnx", "--source", "good.png", "--sink", "out.gif"], ".gif"),
        (["good.onnx", "--source", "good.png", "--sink", "notes.txt/out.mp4"], "notes.txt"),
        (["good.onnx", "--source", "good.png", "--sink", "good.png"], "over the source"),
        (["good.onnx", "--source", "sizes", "--sink", "sizes"], "over the source"),
        (["good.onnx", "--source", "sizes/1.png", "--sink", "sizes/"], "over the source"),
        (["good.onnx", "--source", "good.png"], "no screen"),
        (["good.onnx", "--source", "good.png", "--sink", "none", "--engine", "tensorrt"], "onnx"),
        (["good.onnx", "--source", "good.png", "--sink", "none", "--stats", "empty"], "empty"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(
    p2p_live, clip, tmp_path, monkeypatch, args, told, capfd
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    whole = write_negative(tmp_path / "good.onnx")
    write_float_image_model(tmp_path / "float.onnx")
    (tmp_path / "cut.onnx").write_bytes(whole.read_bytes()[:-9])
    (tmp_path / "empty").mkdir()
    (tmp_path / "sizes").mkdir()
    for name in ("notes.txt", "notes.onnx", "notes.mp4"):
        (tmp_path / name).write_text("no model and no video " * 9)
    for name, size in (("good.png", 20), ("sizes/1.png", 20), ("sizes/2.png", 30)):
        cv2.imwrite(str(tmp_path / name), np.zeros((size, size, 3), np.uint8))
    jpeg = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[:-50])
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:3000])
    before = files_below(tmp_path)

    ran = p2p_live(*args)

    assert ran.exit_code == 2, ran.output
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert told in ran.stderr
    assert files_below(tmp_path) == before
    assert capfd.readouterr().err == "", "OpenCV and ONNX Runtime keep quiet"


def test_an_error_of_the_system_is_one_line_too():
    @one_line_errors
    def fails():
        raise PermissionError(13, "Permission denied", "/root/x")

    with pytest.raises(SystemExit) as caught:
        fails()
    assert caught.value.code == 2


def start(tmp_path, negative_onnx, *args):
    return subprocess.Popen(
        [*LIVE, str(negative_onnx), *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path, running):
    while not (path.is_file() and path.read_text().count("\n") >= 1):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rate", ["&fps=50", ""])
def test_ctrl_c_keeps_the_frames_so_far_as_a_valid_video(tmp_path, negative_onnx, number, rate):
    running = start(
        tmp_path,
        negative_onnx,
        *("--source", f"synthetic://?size=208x96{rate}", "--sink", "out.mp4"),
        *("--stats", "stats.jsonl"),
    )
    wait_for_lines(tmp_path / "stats.jsonl", running)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "stopped: " in out
    assert "Traceback" not in err
    last = read_lines(tmp_path / "stats.jsonl")[-1]
    assert last["final"] is True
    assert last["frames_in"] == last["frames_out"] + last["dropped"]
    numbers = [index_in(image) for image in decoded(tmp_path / "out.mp4")]
    assert len(numbers) >= last["frames_out"] > 0
    assert numbers == sorted(numbers)
    assert files_below(tmp_path) == ["out.mp4", "stats.jsonl"]


def test_the_first_signal_asks_and_the_second_one_aborts():
    stop = threading.Event()
    # A shell's background job ignores Ctrl-C, and so would this process in one.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _stopped_by_signals(stop):
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wait(10)
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the signal arrives in between
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, found)
