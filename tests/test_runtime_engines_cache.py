"""Prepared models on disk: found again, refused when damaged, bounded, and never in the way."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.engines import model_cache, open_engine
from runtime.engines.model_cache import ModelCache, cache_folder, key_of, processor
from runtime.errors import UserError

SHAPE = [1, 16, 24, 3]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("P2P_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 5 MB: three convolutions over 16x24, each with a sum that folds into it."""
    path = tmp_path_factory.mktemp("large") / "m.onnx"
    onnx.save(large_model(), path)
    return path


def large_model():
    rng = np.random.default_rng(0)
    constants, nodes = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    last = node("Cast", ["frames"], "levels", to=TensorProto.FLOAT)
    last = node("Transpose", [last], "planes", perm=[0, 3, 1, 2])
    channels = 3
    for number, made in enumerate((370, 370, 3)):
        spread = 2 / (3 * np.sqrt(channels))
        weights = rng.normal(0, spread, (made, channels, 3, 3))
        last = node("Conv", [last, constant(f"w{number}", weights)], f"conv{number}", pads=[1] * 4)
        offset = constant(f"b{number}", rng.normal(0, 1, (1, made, 1, 1)))
        last = node("Add", [last, offset], f"sum{number}")
        last = node("Relu", [last], f"relu{number}")
        channels = made
    last = node("Clip", [last, constant("low", 0), constant("high", 255)], "clipped")
    last = node("Transpose", [last], "frame", perm=[0, 2, 3, 1])
    node("Cast", [last], "translated", to=TensorProto.UINT8)
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, SHAPE)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, SHAPE)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def translated(path, engine="onnxruntime"):
    """What the model draws, and how the engine describes itself."""
    opened = open_engine(path, engine, threads=1)
    frames = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
    result = opened.infer(frames)
    opened.close()
    return result, opened.description


def entries(cache, kind="onnxruntime"):
    """The entries, without the remains that a killed process could leave."""
    return sorted((cache / kind).iterdir()) if (cache / kind).exists() else []


def test_the_second_start_runs_the_prepared_model_bit_for_bit_alike(cache, large):
    plain, told = translated(large)
    assert "not kept" not in told
    (entry,) = entries(cache)
    assert {file.name for file in entry.iterdir()} == {"model.onnx", "weights.bin", "seal.json"}
    written = {file: file.stat().st_mtime_ns for file in entry.iterdir()}
    again, _ = translated(large)
    assert np.array_equal(plain, again)
    assert np.ptp(plain) > 50
    assert entries(cache) == [entry]
    assert {file: file.stat().st_mtime_ns for file in entry.iterdir()} == written


def test_the_prepared_model_is_what_runs_on_the_second_start(cache, large, monkeypatch):
    translated(large)
    import onnxruntime

    opened = []
    real = onnxruntime.InferenceSession

    def recorded(path, *args, **kwargs):
        opened.append(Path(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    translated(large)
    assert opened == [entries(cache)[0] / "model.onnx"]


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "seal.json"])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "gone"])
def test_a_damaged_entry_is_thrown_away_and_made_anew(cache, large, name, damage):
    plain, _ = translated(large)
    (entry,) = entries(cache)
    file = entry / name
    size = file.stat().st_size
    if damage == "cut":
        os.truncate(file, size // 2)
    elif damage == "overwritten":
        file.write_bytes(os.urandom(size))
    else:
        file.unlink()
    again, told = translated(large)
    assert np.array_equal(plain, again)
    assert "not kept" not in told
    assert ModelCache("onnxruntime").find(entry.name) == entry


def test_a_damage_that_the_seal_does_not_show_is_no_error(cache, large):
    plain, _ = translated(large)
    (entry,) = entries(cache)
    file = entry / "model.onnx"
    before = file.stat()
    file.write_bytes(bytes(before.st_size))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _ = translated(large)
    assert np.array_equal(plain, again)
    assert file.read_bytes() != bytes(before.st_size)


def test_a_model_that_is_exported_again_is_not_taken_from_the_cache(cache, large, tmp_path):
    path = Path(shutil.copy(large, tmp_path / "m.onnx"))
    first, _ = translated(path)
    model = onnx.load(path)
    changed = numpy_helper.from_array(np.full((1, 3, 1, 1), 60, np.float32), "b2")
    next(c for c in model.graph.initializer if c.name == "b2").CopyFrom(changed)
    before = path.stat()
    onnx.save(model, path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # dated back, as rsync does
    second, _ = translated(path)
    assert not np.array_equal(first, second)
    assert len(entries(cache)) == 2


def test_weights_that_lie_in_another_file_are_never_cached(cache, tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(large_model(), path, save_as_external_data=True, location="m.data")
    with path.open("ab") as file:  # a metadata entry makes even such a file a large one
        entry = b"\x0a\x01x\x12" + varint(5_000_000) + bytes(5_000_000)
        file.write(b"\x72" + varint(len(entry)) + entry)
    translated(path)
    assert entries(cache) == []


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_a_small_model_is_not_worth_a_file(cache, tmp_path):
    from onnx_models import write_negative

    path = write_negative(tmp_path / "m.onnx", tuple(SHAPE[1:3]))
    translated(path)
    assert entries(cache) == []


def test_a_cache_that_cannot_be_written_to_is_told_and_nothing_else(large, tmp_path, monkeypatch):
    blocked = tmp_path / "a_file"
    blocked.write_text("no folder")
    monkeypatch.setenv("P2P_CACHE", str(blocked / "cache"))
    result, told = translated(large)
    assert result.shape == tuple(SHAPE)
    assert "starts slowly, its optimised form was not kept: " in told
    assert "could not be written" in told


def test_a_full_disk_is_told_and_leaves_nothing_behind(cache, large):
    """A limit on the size of files stands for a disk that is full: the write fails likewise."""
    code = (
        "import resource, sys; sys.path[:0] = sys.argv[2:]\n"
        "from runtime.engines import open_engine\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))\n"
        "print(open_engine(sys.argv[1], 'onnxruntime', 1).description)\n"
    )
    root = str(Path(__file__).resolve().parent.parent)
    ran = subprocess.run(
        [sys.executable, "-c", code, str(large), root], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "its optimised form was not kept" in ran.stdout
    assert entries(cache) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_too_little_room_is_told_before_the_disk_is_full(cache, large, monkeypatch):
    usage = shutil.disk_usage(large.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    _, told = translated(large)
    assert "has 1 MB free" in told
    assert entries(cache) == []


def test_what_was_used_longest_ago_goes_and_what_is_in_use_stays(cache, monkeypatch):
    monkeypatch.setattr(model_cache, "MOST_BYTES", 2_500)
    kept = ModelCache("onnxruntime")
    for age, key in ((30, "a"), (20, "b"), (10, "c")):
        with kept.make(key) as folder:
            (folder / "weights.bin").write_bytes(bytes(1_000))
        entry = cache / "onnxruntime" / key
        if entry.exists():
            moment = entry.stat().st_mtime - age
            os.utime(entry, (moment, moment))
    assert [entry.name for entry in entries(cache)] == ["b", "c"]
    assert kept.find("b") is not None  # used now: younger than c
    other = ModelCache("openvino").open_folder("d")
    (other / "blob").write_bytes(bytes(1_000))
    ModelCache("openvino").open_folder("d")
    assert [entry.name for entry in entries(cache)] == ["b"]
    with kept.make("huge") as folder:
        (folder / "weights.bin").write_bytes(bytes(9_000))
    assert [entry.name for entry in entries(cache)] == ["huge"]
    assert entries(cache, "openvino") == []


def test_nothing_is_kept_of_a_block_that_raises(cache):
    def fail():
        with ModelCache("onnxruntime").make("a") as folder:
            (folder / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert entries(cache) == []


def test_two_processes_that_make_one_entry_leave_one_that_is_whole(cache):
    first, second = ModelCache("onnxruntime"), ModelCache("onnxruntime")
    with first.make("a") as one, second.make("a") as other:
        (one / "weights.bin").write_text("same")
        (other / "weights.bin").write_text("same")
    assert [entry.name for entry in entries(cache)] == ["a"]
    assert first.find("a") == second.find("a") is not None


def test_the_folder_is_the_one_that_is_named_else_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("P2P_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pix2pix-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "pix2pix-edge"
    monkeypatch.setenv("P2P_CACHE", str(tmp_path / "ours"))
    assert cache_folder() == tmp_path / "ours"


def test_no_home_is_one_line(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("P2P_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="P2P_CACHE"):
        ModelCache("onnxruntime")


def test_a_key_tells_settings_and_files_apart(tmp_path):
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_text("same")
    other.write_text("same")
    keys = {key_of(one, "1.30"), key_of(one, "1.31"), key_of(one, "1.31", "x"), key_of(other)}
    assert len(keys) == 4
    assert key_of(one, "1.30") == key_of(one, "1.30")


def test_the_processor_is_the_same_at_each_start_and_names_its_instructions():
    assert processor() == processor()
    if sys.platform == "linux":
        assert len(processor().split()) > 10


def blob_of(cache):
    (entry,) = entries(cache, "openvino")
    (blob,) = set(entry.iterdir()) - {entry / "seal.json"}
    return blob


def test_openvino_starts_from_its_own_cache_and_survives_a_damaged_one(cache, large):
    pytest.importorskip("openvino", reason="openvino is not installed")
    plain, told = translated(large, "openvino")
    assert "not kept" not in told
    blob = blob_of(cache)
    written = blob.stat().st_mtime_ns
    again, _ = translated(large, "openvino")
    assert np.array_equal(plain, again)
    assert blob.stat().st_mtime_ns == written
    whole = blob.read_bytes()
    third = len(whole) // 3
    zeroed = whole[:third] + bytes(third) + whole[2 * third :]
    for damaged in (zeroed, whole[:1000], os.urandom(5000), b""):
        blob_of(cache).write_bytes(damaged)
        again, told = translated(large, "openvino")
        assert np.array_equal(plain, again)
        assert "not kept" not in told
        assert blob_of(cache).stat().st_size > 2 * third  # names in it differ in length


def test_openvino_takes_no_file_that_lies_in_its_cache_without_a_seal(cache, large):
    pytest.importorskip("openvino", reason="openvino is not installed")
    translated(large, "openvino")
    blob = blob_of(cache)
    foreign = blob.with_name("1.blob")
    foreign.write_bytes(b"left by another program")
    translated(large, "openvino")
    assert not foreign.exists()
    (blob.parent / "seal.json").unlink()
    whole = blob.read_bytes()
    blob.write_bytes(bytes(len(whole)))
    translated(large, "openvino")
    assert blob_of(cache).read_bytes() != bytes(len(whole))


def test_openvino_sees_that_weights_in_another_file_have_changed(cache, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    path, weights = tmp_path / "m.onnx", tmp_path / "m.data"
    onnx.save(large_model(), path, save_as_external_data=True, location="m.data")
    first, _ = translated(path, "openvino")
    numbers = np.fromfile(weights, np.float32)
    (numbers / 2).tofile(weights)
    second, told = translated(path, "openvino")
    assert not np.array_equal(first, second)
    assert "not kept" not in told
    assert entries(cache, "openvino") == []
