"""Unfinished videos that are alive: no other program takes them for what a killed one left."""

import errno
import fcntl
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import decoded

from runtime.errors import SinkError
from runtime.sinks import encoders, matroska, open_sink, parts, video
from runtime.sinks.leftovers import recovered
from runtime.sinks.parts import part_of
from runtime.sources.synthetic import SyntheticSource, index_in

NAMES = ["out.mp4", "out.mkv", "out.avi"]
WRITE_AND_WAIT = """
import sys
from runtime.sinks import open_sink
from runtime.sources.synthetic import SyntheticSource
source = SyntheticSource((96, 208))
sink = open_sink(sys.argv[1])
for _ in range(60):
    sink.write(source.read())
print("written", flush=True)
sys.stdin.readline()
sink.close()
"""


def frames_of(count):
    return list(iter(SyntheticSource((96, 208), frames=count).read, None))


@pytest.fixture
def other_program():
    """Start a program that has written 60 pictures and closes its video when told to."""
    started = []

    def start(path):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", WRITE_AND_WAIT, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            )
        )
        assert started[-1].stdout.readline() == "written\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", NAMES)
def test_a_video_is_not_taken_for_dead_while_it_is_finished(tmp_path, monkeypatch, name):
    path = tmp_path / name
    sink = open_sink(str(path))
    for frame in frames_of(30):
        sink.write(frame)
    found = []
    really_holds = video._holds

    def looked_at_meanwhile(*args):
        found.append((recovered(path), sink.finishing))
        return really_holds(*args)

    monkeypatch.setattr(video, "_holds", looked_at_meanwhile)
    assert not sink.finishing
    sink.close()
    assert found == [("", True)]
    assert not sink.finishing
    assert list(tmp_path.iterdir()) == [path]
    assert [index_in(image) for image in decoded(path)] == list(range(30))


def test_a_video_stays_locked_while_its_index_goes_to_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path))
    for frame in frames_of(30):
        sink.write(frame)
    told = []
    monkeypatch.setattr(os, "fsync", lambda file: told.append(recovered(path)))
    sink.close()
    assert told == [""]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_program_is_refused_when_it_opens_and_the_first_loses_nothing(
    tmp_path, other_program, name
):
    path = tmp_path / name
    first = other_program(path)
    with pytest.raises(SinkError, match="is being written by another program"):
        open_sink(str(path))
    first.communicate("\n")
    assert first.returncode == 0
    assert list(tmp_path.iterdir()) == [path]
    assert len(decoded(path)) == 60
    open_sink(str(path)).close()  # it is free again


def test_two_that_opened_before_either_had_a_picture_do_not_both_write(tmp_path, other_program):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path))
    first = other_program(path)
    with pytest.raises(SinkError, match="is being written by another program"):
        sink.write(frames_of(1)[0])
    sink.close(keep=False)
    first.communicate("\n")
    assert list(tmp_path.iterdir()) == [path]
    assert len(decoded(path)) == 60


def test_two_sinks_of_one_program_for_one_file_are_refused(tmp_path):
    path = tmp_path / "out.mp4"
    frames = frames_of(30)
    early = open_sink(str(path))
    sink = open_sink(str(path))
    for frame in frames[:20]:
        sink.write(frame)
    with pytest.raises(SinkError, match="written already by this program"):
        open_sink(str(path))
    with pytest.raises(SinkError, match="written already by this program"):
        early.write(frames[0])
    for frame in frames[20:]:
        sink.write(frame)
    sink.close()
    assert [index_in(image) for image in decoded(path)] == list(range(30))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_where_nothing_can_be_locked_a_part_is_left_and_named(tmp_path, monkeypatch, number):
    """The refusal stands for NFS without its lock service and mounts without `flock`."""

    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path))
    frames = frames_of(30)
    for frame in frames[:20]:
        sink.write(frame)
    assert part_of(path, ".mkv").name in recovered(path)
    for frame in frames[20:]:
        sink.write(frame)
    sink.close()
    assert list(tmp_path.iterdir()) == [path]
    assert len(decoded(path)) == 30


def test_a_lock_is_asked_for_with_a_file_open_to_be_written(tmp_path, monkeypatch, other_program):
    """The refusal stands for NFS, which makes a `flock` into a lock of its own kind."""
    real = fcntl.flock

    def as_on_nfs(file, operation):
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    path = tmp_path / "out.mp4"
    program = other_program(path)
    assert recovered(path) == ""
    program.kill()
    program.wait()
    assert "out-recovered-1.mp4" in recovered(path)
    assert len(decoded(tmp_path / "out-recovered-1.mp4")) >= 30


def test_a_part_that_is_not_locked_yet_is_not_removed(tmp_path, monkeypatch):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path))
    really_locked = parts.locked

    def looked_at_before(file, shared=False):
        if part_of(path, ".mkv").exists():
            monkeypatch.setattr(parts, "locked", really_locked)
            assert recovered(path) == ""
        return really_locked(file, shared)

    monkeypatch.setattr(parts, "locked", looked_at_before)
    for frame in frames_of(10):
        sink.write(frame)
    sink.close()
    assert parts.locked is really_locked, "it was looked at"
    assert list(tmp_path.iterdir()) == [path]
    assert len(decoded(path)) == 10


def test_a_part_that_was_removed_before_its_lock_is_made_again(tmp_path, monkeypatch):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path))
    really_locked = parts.locked

    def removed_before(file, shared=False):
        monkeypatch.setattr(parts, "locked", really_locked)
        part_of(path, ".mkv").unlink()
        return really_locked(file, shared)

    monkeypatch.setattr(parts, "locked", removed_before)
    for frame in frames_of(10):
        sink.write(frame)
    sink.close()
    assert len(decoded(path)) == 10


def test_an_empty_part_is_removed_once_it_is_old(tmp_path):
    path = tmp_path / "out.mp4"
    young, old = tmp_path / ".out.mp4.1.part.mkv", tmp_path / ".out.mp4.2.part.mkv"
    for part in (young, old):
        part.touch()
    long_ago = time.time() - 2 * parts.YOUNG_S
    os.utime(old, (long_ago, long_ago))
    assert recovered(path) == ""
    assert list(tmp_path.iterdir()) == [young]


def test_an_empty_part_of_an_earlier_process_of_the_same_number_is_taken_over(tmp_path):
    """In a container every run is process 1."""
    path = tmp_path / "out.mp4"
    part_of(path, ".mkv").touch()
    sink = open_sink(str(path))
    for frame in frames_of(10):
        sink.write(frame)
    sink.close()
    assert list(tmp_path.iterdir()) == [path]
    assert len(decoded(path)) == 10


def test_an_end_while_a_video_is_opened_leaves_no_open_file(tmp_path, monkeypatch):
    sink = open_sink(str(tmp_path / "out.mp4"))

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoders, "_opened", interrupted)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(KeyboardInterrupt):
        sink.write(frames_of(1)[0])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []


def test_finding_the_pictures_of_a_recording_copies_none_of_them(tmp_path, monkeypatch):
    path = tmp_path / "out.mkv"
    sink = open_sink(f"{path}?codec=mjpg")
    for frame in frames_of(40):
        sink.write(frame)
    sink.close()
    copied = 0

    class Counting(mmap.mmap):
        def __getitem__(self, place):
            nonlocal copied
            got = super().__getitem__(place)
            copied += len(got) if isinstance(got, bytes) else 1
            return got

    counted = SimpleNamespace(mmap=Counting, ACCESS_READ=mmap.ACCESS_READ)
    monkeypatch.setattr(matroska, "mmap", counted)
    assert len(matroska.read_track(path).offsets) == 40
    assert 0 < copied < path.stat().st_size / 10
