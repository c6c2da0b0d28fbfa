"""p2p-live as a process that is told to end, at each stage: it ends soon, and keeps its frames."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import decoded

from runtime.sources.synthetic import index_in

LIVE = [sys.executable, "-c", "from runtime.cli import live; live(prog_name='p2p-live')"]
ENDS_WITHIN_S = 6.0
"""Two seconds are promised; a machine that runs other tests beside this one gets more."""


class Running:
    """A real p2p-live in a folder of its own."""

    def __init__(self, folder, *arguments, **pipes):
        self.folder = folder
        command = [*LIVE, *map(str, arguments), "--stats", "stats.jsonl"]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stderr=subprocess.PIPE,
            **pipes,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def until(self, happened):
        until_s = time.monotonic() + 60
        while not happened():
            assert self.process.poll() is None, self.process.stderr.read().decode()
            assert time.monotonic() < until_s, "it never came that far"
            time.sleep(0.05)

    def frames_in(self):
        lines = self.lines()
        return lines[-1]["frames_in"] if lines else 0

    def lines(self):
        path = self.folder / "stats.jsonl"
        text = path.read_text() if path.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def ends_after(self, number):
        self.process.send_signal(number)
        told_s = time.monotonic()
        code = self.process.wait(30)
        took_s = time.monotonic() - told_s
        print(f"ended {took_s:.2f} s after {signal.Signals(number).name}")  # noqa: T201
        assert took_s < ENDS_WITHIN_S
        return code


SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_recording_camera_ends_with_a_video_that_plays(tmp_path, negative_onnx, number):
    camera = ("--source", "synthetic://?fps=30&size=208x96")
    with Running(tmp_path, negative_onnx, *camera, "--sink", "out.mp4") as running:
        running.until(lambda: running.frames_in() > 20)
        assert running.ends_after(number) == 0
        last = running.lines()[-1]
    assert last["final"] is True
    assert last["frames_in"] == last["frames_out"] + last["dropped"]
    shown = [index_in(image) for image in decoded(tmp_path / "out.mp4")]
    assert len(shown) >= last["frames_out"] > 20
    assert shown == sorted(shown)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_file_ends_in_the_middle_with_the_frames_so_far(tmp_path, negative_onnx, number):
    endless = ("--source", "synthetic://?size=208x96")
    with Running(tmp_path, negative_onnx, *endless, "--sink", "out.mp4") as running:
        running.until(lambda: running.frames_in() > 100)
        assert running.ends_after(number) == 0
        last = running.lines()[-1]
    shown = [index_in(image) for image in decoded(tmp_path / "out.mp4")]
    assert shown == list(range(last["frames_out"]))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("live", ["", "&live=1"])
def test_a_source_that_gives_nothing_is_no_reason_to_stay(tmp_path, negative_onnx, number, live):
    silent = ("--source", f"-?size=64x48{live}")
    with Running(
        tmp_path, negative_onnx, *silent, "--sink", "none", stdin=subprocess.PIPE
    ) as running:
        running.process.stdin.write(bytes(64 * 48 * 3))
        running.process.stdin.flush()
        running.until(lambda: running.frames_in() == 1)
        assert running.ends_after(number) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_sink_that_nobody_empties_is_no_reason_to_stay(tmp_path, negative_onnx, number):
    camera = ("--source", "synthetic://?fps=30&size=640x480")
    with Running(
        tmp_path, negative_onnx, *camera, "--sink", "-", stdout=subprocess.PIPE
    ) as running:
        running.until(lambda: running.frames_in() > 30)
        running.ends_after(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_camera_that_is_gone_is_no_reason_to_stay(tmp_path, negative_onnx, number):
    size = "video/x-raw,width=208,height=96"
    camera = f"gst://videotestsrc is-live=true ! {size} ! identity error-after=40"
    with Running(tmp_path, negative_onnx, "--source", camera, "--sink", "out.mp4") as running:
        running.until(lambda: running.lines() and running.lines()[-1]["lost"] > 0)
        assert running.ends_after(number) == 0
    assert len(list(decoded(tmp_path / "out.mp4"))) > 0


def test_a_killed_recording_is_found_by_the_next_run(tmp_path, negative_onnx):
    camera = ("--source", "synthetic://?fps=30&size=208x96")
    with Running(tmp_path, negative_onnx, *camera, "--sink", "out.mp4") as running:
        running.until(lambda: running.frames_in() > 90)
        running.process.kill()
        running.process.wait()
    assert not (tmp_path / "out.mp4").exists()
    few = ("--source", "synthetic://?size=208x96&frames=5")
    with Running(tmp_path, negative_onnx, *few, "--sink", "out.mp4") as running:
        told = running.process.stderr.read().decode()
        assert running.process.wait(60) == 0
    assert "out-recovered-1.mp4" in told
    found = [index_in(image) for image in decoded(tmp_path / "out-recovered-1.mp4")]
    assert len(found) > 45
    assert found == sorted(found)
    assert len(list(decoded(tmp_path / "out.mp4"))) == 5


@pytest.mark.parametrize("moment_s", [0.0, 0.4, 0.8])
def test_killed_while_it_starts_it_leaves_nothing_in_the_way(tmp_path, negative_onnx, moment_s):
    with Running(
        tmp_path, negative_onnx, "--source", "synthetic://?fps=30&size=208x96", "--sink", "out.mp4"
    ) as running:
        time.sleep(moment_s)
        running.process.kill()
        running.process.wait()
    few = ("--source", "synthetic://?size=208x96&frames=5")
    with Running(tmp_path, negative_onnx, *few, "--sink", "out.mp4") as running:
        assert running.process.wait(60) == 0
    assert len(list(decoded(tmp_path / "out.mp4"))) == 5
