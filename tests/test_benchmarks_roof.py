"""The roof: rates of known work, times of given peaks, and the command as a user meets it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from onnx_models import write_negative
from rich.console import Console

import benchmarks.roof as command
from benchmarks.roof import main, roof_table, share
from benchmarks.roofs.graph_work import Layer, Work
from benchmarks.roofs.instructions import instruction_note
from benchmarks.roofs.memory import COPY, READ, TRIAD, Bandwidth, bandwidth
from benchmarks.roofs.peaks import CUDA, Effort, Peaks, peaks
from benchmarks.roofs.products import (
    ZERO_POINT,
    Product,
    convolution_operands,
    cpu_ways,
    operands,
    step_of,
)
from benchmarks.roofs.rates import Rate, seconds_of
from benchmarks.roofs.roofline import COMPUTE, MEMORY, layer_times
from runtime.errors import EngineError, UserError

SMALL = Effort(
    products=(Product(8 * 8, 9 * 8, 16),),
    footprints_bytes=(2**16,),
    main_footprint_bytes=2**20,
    repetitions=2,
)
WAYS, ABSENT = cpu_ways()


def rate(value):
    return Rate(1, value, value, value, value, "by hand")


def level(footprint_bytes, gb_per_s):
    return Bandwidth(footprint_bytes, {COPY: rate(gb_per_s), READ: rate(gb_per_s / 2)})


def machine(**products):
    """1 GB/s from main memory, 10 from a cache of 1000 bytes."""
    given = {name.upper(): rate(value) for name, value in products.items()}
    return Peaks("a machine", 2, given, level(10**6, 1.0), (level(1000, 10.0),))


def layer(macs, moved_bytes, precision="FP32", name="conv"):
    return Layer(name, "Conv", precision, macs, 0, moved_bytes, 0)


def shown(rendered):
    into = io.StringIO()
    Console(file=into, width=150).print(rendered)
    return into.getvalue()


# ------------------------------------------------------------------------------------- measuring


def test_a_rate_is_work_over_time_of_which_the_best_and_the_median_are_kept():
    # 3 G in 1, 2, 3 and 6 seconds.
    found = Rate.of(3 * 10**9, [1.0, 2.0, 3.0, 6.0], "by hand", "a note")
    assert (found.count, found.best, found.p90, found.p50, found.p10) == (4, 3.0, 3.0, 1.0, 0.5)
    assert found.to_json()["note"] == "a note"


def test_calls_of_a_repetition_share_its_time_and_one_call_comes_before():
    called = []
    spent = seconds_of(lambda: called.append(1), repetitions=3, calls=5)
    assert len(spent) == 3
    assert len(called) == 1 + 3 * 5
    assert all(each > 0 for each in spent)


def test_a_product_counts_rows_times_inner_times_columns():
    assert Product(2, 3, 5).macs == 30
    assert Product(64, 72, 16).side_px == 8
    assert Product(64, 70, 16).side_px is None
    assert Product(63, 72, 16).side_px is None


def test_a_convolution_that_stands_for_a_product_does_as_much():
    product = Product(64, 72, 16)
    frame, kernel = convolution_operands(product)
    given = torch.nn.functional.conv2d(
        *(torch.from_numpy(each).float() for each in (frame, kernel))
    )
    assert given.shape == (1, 16, 8, 8)
    assert given.numel() * kernel[0].size == product.macs
    with pytest.raises(ValueError, match="no convolution"):
        convolution_operands(Product(63, 72, 16))


def exact(product, is_convolution):
    if not is_convolution:
        return np.matmul(*(each.astype(np.int64) for each in operands(product)))
    frame, kernel = (torch.from_numpy(each).double() for each in convolution_operands(product))
    return torch.nn.functional.conv2d(frame, kernel).numpy()


@pytest.mark.parametrize("way", WAYS, ids=lambda w: f"{w.precision}-{w.library}-{w.operator}")
def test_each_library_computes_the_product_that_is_counted(way):
    product = SMALL.products[0]
    assert way.takes(product)
    made = way.prepare(product, 1)()
    wanted = exact(product, way.is_convolution)
    if isinstance(made, torch.Tensor):
        made = (made.int_repr() if made.is_quantized else made.to(torch.float64)).numpy()
    if made.dtype == np.uint8:
        levels = np.clip(np.rint(wanted / step_of(product)) + ZERO_POINT, 0, 255)
        assert np.abs(made - levels).max() <= 1
        assert levels.std() > 3
    else:
        np.testing.assert_allclose(np.asarray(made, np.float64), wanted, rtol=0.01, atol=0.01)


def test_every_precision_has_a_way_and_a_missing_library_is_named():
    installed = {way.library.split()[0] for way in WAYS}
    assert {"torch", "ONNX"} <= installed
    assert {way.precision for way in WAYS} >= {"FP32", "FP16", "BF16", "INT8"}
    assert len(ABSENT) == (0 if "OpenVINO" in installed else 1)


def test_bandwidth_counts_what_each_pass_reads_and_writes():
    found = bandwidth(3 * 2**18, repetitions=2, threads=1)
    assert set(found.passes) == {COPY, TRIAD, READ}
    assert all(0 < each.p50 <= each.best for each in found.passes.values())
    assert found.best == max(each.best for each in found.passes.values())
    assert found.to_json()["copy"]["count"] == 2


def test_the_peaks_of_this_machine_in_one_unit_however_often_they_are_repeated():
    once = peaks(1, effort=SMALL)
    twice = peaks(1, effort=Effort(**{**vars(SMALL), "repetitions": 4}))
    for found, count in ((once, 2), (twice, 4)):
        assert set(found.products) == {"FP32", "FP16", "BF16", "INT8"}
        assert all(0 < each.p10 <= each.p50 <= each.best for each in found.products.values())
        assert {each.count for each in found.products.values()} == {count}
        assert found.memory.footprint_bytes == 2**20
        assert [each.footprint_bytes for each in found.caches] == [2**16]
    told = (once.to_json(), twice.to_json())
    assert told[0].keys() == told[1].keys()
    assert told[0]["gmacs_per_s"].keys() == told[1]["gmacs_per_s"].keys()
    json.dumps(told)


def test_a_precision_without_instructions_says_so_on_either_architecture():
    assert instruction_note("INT8", frozenset({"avx2", "fma"}), "x86_64").startswith("NO")
    assert "avx512_vnni" in instruction_note("INT8", frozenset({"avx512_vnni"}), "x86_64")
    assert instruction_note("BF16", frozenset({"asimd", "asimddp"}), "aarch64").startswith("NO")
    assert "asimddp" in instruction_note("INT8", frozenset({"asimd", "asimddp"}), "aarch64")
    assert "does not tell" in instruction_note("INT8", frozenset(), "x86_64")
    assert "does not tell" in instruction_note("INT8", frozenset({"x"}), "riscv64")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_peak_of_a_gpu_that_is_not_there_is_told_in_one_line():
    with pytest.raises(EngineError, match="does not find a GPU"):
        peaks(1, CUDA, SMALL)


# ------------------------------------------------------------------------------------- comparing


def test_each_layer_takes_the_longer_of_its_products_and_its_bytes():
    # 4e6 products at 2 G/s: 2 ms; 1e6 bytes at 1 GB/s: 1 ms. Then 1 ms and 3 ms.
    work = Work((layer(4_000_000, 1_000_000), layer(2_000_000, 3_000_000)))
    found = share(work, machine(fp32=2.0), infer_ms=10.0)
    assert (found.compute_ms, found.memory_ms) == pytest.approx((3.0, 4.0))
    assert found.least_ms == pytest.approx(2.0 + 3.0)
    assert found.share == pytest.approx(0.5)
    assert (found.macs, found.moved_bytes) == (6_000_000, 4_000_000)
    assert found.bound == MEMORY
    assert found.fault == ""
    assert [time.bound for time in layer_times(work, machine(fp32=2.0))] == [COMPUTE, MEMORY]


def test_mixed_graphs_are_summed_in_each_layers_precision():
    work = Work((layer(4_000_000, 1), layer(4_000_000, 1, "INT8")))
    found = share(work, machine(fp32=2.0, int8=8.0), 10.0)
    assert found.least_ms == pytest.approx(2.0 + 0.5)
    assert found.peaks_used == {"FP32": "FP32", "INT8": "INT8"}


def test_a_precision_that_the_machine_is_slow_in_may_be_computed_in_a_wider_one():
    # INT8 at half the rate of FP32; FP32 itself may not become INT8.
    work = Work((layer(4_000_000, 1, "INT8"), layer(4_000_000, 1, "FP16")))
    found = share(work, machine(fp32=2.0, int8=1.0), 10.0)
    assert found.least_ms == pytest.approx(2.0 + 2.0)
    assert found.peaks_used == {"INT8": "FP32", "FP16": "FP32"}
    assert machine(fp32=2.0, int8=9.0).product_rate("FP32") == (2.0, "FP32")


def test_what_fits_into_a_cache_gets_the_bandwidth_of_the_cache():
    told = machine(fp32=1.0)
    assert told.bandwidth_of(10) == 10.0
    assert told.bandwidth_of(999_999) == 10.0
    assert told.bandwidth_of(1_000_000) == 1.0
    slow_cache = Peaks("a machine", 1, {}, level(10**6, 4.0), (level(1000, 2.0),))
    assert slow_cache.bandwidth_of(1000) == 4.0, "never less than main memory's"


def test_a_share_above_one_is_told_and_never_clipped():
    found = share(Work((layer(4_000_000, 1),)), machine(fp32=2.0), infer_ms=1.0)
    assert found.share == pytest.approx(2.0)
    assert "2.00 is above 1" in found.fault
    told = shown(roof_table(machine(fp32=2.0), [("model.onnx", found)]))
    assert "200.0%" in told
    assert "warning: model.onnx" in told


def test_the_table_has_the_peaks_first_and_then_the_rows():
    work = Work((layer(4_000_000, 1_000_000),))
    found = share(work, machine(fp32=2.0), 8.0)
    told = shown(roof_table(machine(fp32=2.0), [("ours", found)]))
    assert told.index("FP32, G MAC/s") < told.index("ours")
    (row,) = (line for line in told.splitlines() if "ours" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["ours", "0.004", "1.00", "compute", "2.000", "8.000", "25.0%"]
    json.dumps(found.to_json())


def test_a_precision_without_a_peak_and_a_time_of_nothing_are_refused():
    with pytest.raises(UserError, match="no peak was measured for FP64"):
        share(Work((layer(1, 1, "FP64"),)), machine(fp32=1.0), 1.0)
    with pytest.raises(ValueError, match="0"):
        share(Work(()), machine(fp32=1.0), 0)


# ---------------------------------------------------------------------------------- the command


@pytest.fixture
def quick(monkeypatch):
    """The command, with small shapes: what it prints does not depend on them."""
    monkeypatch.setattr(
        command, "peaks", lambda *args, on_step: peaks(*args, SMALL, on_step=on_step)
    )


@pytest.mark.usefixtures("quick")
def test_the_command_prints_peaks_and_layers_and_writes_them(tmp_path, capfd):
    model = write_negative(tmp_path / "negative.onnx", (48, 104))
    code = main([str(model), "--threads", "1", "--json", str(tmp_path / "roof.json")])
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    for told in ("FP32, G MAC/s", "INT8, G MAC/s", "copy of 1 MiB", "frames in and out", "all"):
        assert told in out
    values = json.loads((tmp_path / "roof.json").read_text())
    assert (values["schema"], values["kind"], values["roof"]["threads"]) == (1, "roof", 1)
    (found,) = values["models"]
    assert (found["file"], found["macs"]) == ("negative.onnx", 0)
    assert found["moved_bytes"] == 2 * 48 * 104 * 3
    assert found["least_ms"] == sum(each["least_ms"] for each in found["layers"]) > 0
    assert str(tmp_path) not in json.dumps(values)


@pytest.mark.parametrize("arguments", [["no.onnx"], ["--threads", "0"], ["--device", "tpu"]])
def test_bad_input_is_one_line_and_exit_code_two(arguments, capfd):
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
