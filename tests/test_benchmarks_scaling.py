"""`python benchmarks/scaling.py`: arithmetic on given numbers, the command with real models."""

import json
import math
from pathlib import Path

import cv2
import pytest
from made_runs import write_run
from onnx_models import write_negative

from benchmarks.growths import points as scaling_points
from benchmarks.growths.fits import LINE, POWER, Timed, amdahl_speed_up, growth, serial_share
from benchmarks.growths.memory import Seen, expected_bytes, free_bytes
from benchmarks.growths.models import GivenFile, families_of, nearest_size, usual_sizes
from benchmarks.growths.points import Point, Skipped, Taken, Timing, measure
from benchmarks.growths.report import newest_age_ms
from benchmarks.scaling import main
from runtime.artifact import ArtifactMeta, meta_of_onnx
from trainer.config import GeneratorConfig

AMOUNTS = (0.0625, 0.25, 0.5, 1.0, 2.0)
DYNAMIC = ArtifactMeta(
    generator="negative",
    precision="fp32",
    frame_size_px=(64, 96),
    network_size_px=(64, 96),
    opset=18,
    source="generator.safetensors",
    source_sha256="ab" * 32,
    batch=2,
    dynamic=True,
    size_multiple=8,
)


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A dynamic model that gives the negative, in batches of up to two."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return write_negative(path, ("height", "width"), DYNAMIC, batch="frames")


def timed(time_ms, wobble=(0.99, 1.0, 1.01)):
    return [Timed(x, [time_ms(x) * factor for factor in wobble]) for x in AMOUNTS]


# -------------------------------------------------------------------------------------- the laws


def test_a_power_law_is_found_again_with_its_exponent_and_factor():
    found = growth(timed(lambda x: 120 * x**1.1))
    assert found.better == POWER
    assert found.power.second.value == pytest.approx(1.1)
    assert found.power.first.value == pytest.approx(120)
    assert found.power.rms == pytest.approx(0, abs=1e-9)
    assert found.power.second.low <= 1.1 <= found.power.second.high
    assert found.far_off == []
    assert [step.exponent.value for step in found.steps] == pytest.approx([1.1] * 4)


def test_a_fixed_cost_and_a_cost_of_each_megapixel_are_found_again():
    found = growth(timed(lambda x: 7 + 80 * x))
    assert found.better == LINE
    assert found.line.first.value == pytest.approx(7)
    assert found.line.second.value == pytest.approx(80)
    assert found.power.second.value < 1
    assert found.line.rms < found.power.rms
    assert found.better_share == 1.0


def test_rounds_that_scatter_give_a_wider_interval_of_the_exponent():
    # Each point's rounds scatter in an order of their own: else they cancel out in the slope.
    def scattered(by):
        orders = [
            (1, 2, 0, 2, 1),
            (0, 1, 2, 1, 2),
            (2, 0, 1, 0, 1),
            (1, 0, 2, 2, 0),
            (0, 2, 1, 1, 0),
        ]
        return [
            Timed(x, [100 * x * (1 + by * (step - 1)) for step in order])
            for x, order in zip(AMOUNTS, orders, strict=True)
        ]

    narrow, wide = (growth(scattered(by)).power.second for by in (0.01, 0.1))
    assert 0 < narrow.high - narrow.low < wide.high - wide.low


def test_a_point_that_the_others_do_not_foretell_is_named_and_no_other():
    points = timed(lambda x: 100 * x)
    points[2] = Timed(0.5, [80.0, 80.0, 80.0])
    found = growth(points)
    assert found.far_off == [2]
    assert found.left_out[2].value == pytest.approx(0.6)
    assert found.power.residuals[2] > 0.2


def test_two_amounts_are_no_growth():
    with pytest.raises(ValueError, match="3 are needed"):
        growth([Timed(1.0, [1.0]), Timed(1.0, [1.0]), Timed(2.0, [2.0])])


def test_amdahls_serial_share_is_found_again_from_the_times_of_several_threads():
    rounds = {n: [100 / amdahl_speed_up(0.2, n)] * 3 for n in (1, 2, 4)}
    found = serial_share(rounds)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))
    assert amdahl_speed_up(0.2, 2) == pytest.approx(1 / 0.6)
    with pytest.raises(ValueError, match="one thread"):
        serial_share({2: [1.0], 4: [1.0]})


def test_the_newest_frame_in_hand_ages_until_the_next_arrives():
    # Captured at 0 and 100 ms, in hand at 20 and 130: its age goes from 20 to 130 ms.
    stamps = [(0, 20_000_000), (100_000_000, 130_000_000)]
    assert newest_age_ms(stamps) == pytest.approx(75)
    assert newest_age_ms(stamps[:1]) is None


# ----------------------------------------------------------------------------------------- memory


def test_what_a_point_will_take_follows_from_what_smaller_ones_took():
    one = {100: Seen(100, 50, 150)}
    assert expected_bytes(400, 10, one) == 50 + 4 * 100
    two = one | {200: Seen(200, 50, 210)}
    assert expected_bytes(400, 10, two) == 210 + 2 * 60
    assert expected_bytes(200, 10, two) == 210
    assert expected_bytes(400, 10, {}) < expected_bytes(400, 10**9, {})


def test_a_point_that_does_not_fit_into_what_is_free_is_skipped_and_the_rest_runs(
    model, monkeypatch
):
    asked = []

    def free():
        asked.append(None)
        return 64 << 30 if len(asked) == 1 else 1 << 20  # the second point finds nothing free

    monkeypatch.setattr(scaling_points, "free_bytes", free)
    points = [Point("m", model, (64, 64), threads=1), Point("m", model, (128, 128), threads=1)]
    monkeypatch.setattr(scaling_points._Crew, "turn", _turn_while_alive)
    outcomes = measure(points, [], Timing("auto", 3, 1, 0.1, 0, 30.0))
    skipped = outcomes[points[1]]
    assert isinstance(skipped, Skipped)
    assert "128x128" in skipped.why
    assert "of memory" in skipped.why
    assert "1 MiB" in skipped.why


def _turn_while_alive(crew, point):
    """The process that was ended to make room is not started again: nothing is free."""
    assert point not in crew._alive


def test_free_memory_is_told_in_bytes():
    free = free_bytes()
    assert free is None or 1 << 20 < free < 1 << 50


# ----------------------------------------------------------------------------------- sizes, files


def test_usual_sizes_are_those_that_the_network_takes(tmp_path):
    meta = ArtifactMeta(**{**DYNAMIC.__dict__, "size_multiple": 256})
    family = GivenFile(write_negative(tmp_path / "m.onnx", ("h", "w"), meta, batch="n"))
    assert usual_sizes(family) == [
        (256, 256), (512, 512), (512, 768), (768, 1280), (1024, 2048),
    ]  # fmt: skip
    assert nearest_size(family, (1, 400)) == (256, 512)


@pytest.mark.slow
def test_a_retouching_run_is_exported_at_each_frame_size_and_another_once_for_all(
    tmp_path, one_thread
):
    relight = write_run(tmp_path / "relight", GeneratorConfig("relight_s", ngf=8))
    plain = write_run(tmp_path / "plain", GeneratorConfig("unet_128", ngf=8))
    told = []
    retouching, whole = families_of(
        [relight, plain], tmp_path / "scratch", precisions=(), fixed=False, most_batch=2,
        calibration=None, say=told.append,
    )  # fmt: skip
    assert (retouching.way, whole.way) == ("frame-size", "dynamic")
    first = retouching.file_for((70, 90), 1)
    assert retouching.file_for((70, 90), 1) == first
    meta = meta_of_onnx(first)
    assert (meta.frame_size_px, meta.dynamic, meta.verified) == ((70, 90), False, False)
    size = nearest_size(whole, (128, 128))
    dynamic = meta_of_onnx(whole.file_for(size, 1))
    assert (dynamic.dynamic, dynamic.batch) == (True, 2)
    assert whole.file_for(nearest_size(whole, (256, 128)), 2) == whole.file_for(size, 1)
    assert len(told) == 2
    assert "--frame-size 70x90" in told[0]
    assert "--dynamic --batch 2" in told[1]
    assert all(str(tmp_path) not in line for line in told)


# ---------------------------------------------------------------------------------- the command


def test_one_run_gives_tables_a_file_and_a_picture_that_agree(bench, tmp_path, model):
    code, out, err = bench(
        model, "--size", 64, "--size", "128x64", "--size", "128x128", "--batch", "1,2",
        "--cameras", "2", "--threads", "1,2", "--rounds", 3, "--frames", 2, "--seconds", 0.2,
    )  # fmt: skip
    assert (code, err) == (0, "") or (code == 0 and err.startswith("measuring: round"))
    for told in ("megapixels ^", "frames", "speed-up", "Amdahl", "goal", "newest", "p95"):
        assert told in out
    assert cv2.imread("scaling.png") is not None
    values = json.loads(Path("scaling.json").read_text(encoding="utf-8"))
    assert (values["schema"], values["kind"]) == (2, "scaling")
    assert values["environment"]["cpu"]
    assert str(tmp_path) not in json.dumps(values)
    (series,) = values["series"]
    assert series["export"]["way"] == "as given"

    points = series["pixels"]["points"]
    assert [point["frame_size_px"] for point in points] == [[64, 64], [128, 64], [128, 128]]
    for point in points:
        told = point["frame_ms"]
        assert told["count"] == 6
        assert told["p50"] <= told["p90"] <= told["p95"] <= told["p99"] <= told["most"]
        assert len(point["samples_ms"]) == len(point["round_medians_ms"]) == 3
        peak = point["peak_resident_bytes"]
        assert peak is None or peak > point["before_bytes"] > 1 << 20
    fit = series["pixels"]["fit"]
    power = fit["power"]
    for point, off in zip(points, power["residuals"], strict=True):
        fitted = power["ms_at_one_megapixel"]["value"] * math.pow(
            point["megapixels"], power["exponent"]["value"]
        )
        middle = sorted(point["round_medians_ms"])[1]
        assert middle / fitted - 1 == pytest.approx(off, abs=1e-6)
    assert fit["goal"]["reached"] == (power["exponent"]["value"] <= 1.05)

    one, two = series["batch"]["points"]
    assert (one["batch"], one["relative"]["value"]) == (1, 1.0)
    assert two["fps"] == pytest.approx(2000 / sorted(two["round_medians_ms"])[1])
    assert series["threads"]["points"][0]["speed_up"]["value"] == 1.0
    assert series["threads"]["serial_share"] is not None
    (cameras,) = series["cameras"]["points"]
    assert cameras["frames_per_inference"] == 2
    assert list(cameras["by_camera"]) == ["camera-1", "camera-2"]
    for camera in cameras["by_camera"].values():
        assert 0 < camera["fps"] < 60
        assert camera["newest_age_ms"] >= camera["age_ms"]["least"]


def test_a_process_that_ends_is_told_and_the_others_go_on(model, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:-40])
    points = [Point("a", model, (64, 64), threads=1), Point("b", broken, (64, 64), threads=1)]
    outcomes = measure(points, [], Timing("auto", 3, 2, 0.1, 0, 30.0))
    assert isinstance(outcomes[points[0]], Taken)
    assert [len(part) for part in outcomes[points[0]].taken_ms] == [2, 2, 2]
    assert isinstance(outcomes[points[1]], Skipped)
    assert "broken.onnx" in outcomes[points[1]].why
    assert "\n" not in outcomes[points[1]].why


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--size", "60x64", "--size", "128", "--size", "256"], "multiples of 8"),
        (["--size", "60x64", "--size", "128", "--size", "256"], "use --size 64x64"),
        (["--size", "64", "--size", "128"], "at least 3"),
        (["--size", "64x128", "--size", "128x64", "--size", "256"], "at least 3"),
        (["--size", "wide"], "expected HEIGHTxWIDTH"),
        (["--size", "0x64"], "expected HEIGHTxWIDTH"),
        (["--at", "100x100"], "use --at 104x104"),
        (["--batch", "0"], "expected numbers from 1"),
        (["--batch", "2,4"], "use --batch 1,2,4"),
        (["--batch", "1,4"], "--dynamic --batch 4"),
        (["--threads", "2,4"], "use --threads 1,2,4"),
        (["--cameras", "-1"], "expected numbers from 1"),
        (["--precision", "int8"], "which is fp32"),
        (["--calibration", "photos"], "add --precision int8"),
        (["--plot", "scaling.txt"], "rename it"),
    ],
)
def test_what_cannot_answer_the_question_is_refused_in_one_line(bench, model, options, told):
    code, out, err = bench(model, *options)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_file_of_one_size_is_refused_with_the_flag_that_mends_it(bench, tmp_path):
    fixed = write_negative(tmp_path / "fixed.onnx")
    code, _, err = bench(fixed)
    assert code == 2
    assert "takes frames of one size alone" in err
    assert "--dynamic" in err
    assert bench(tmp_path / "gone.onnx")[0] == 2


def test_without_matplotlib_the_numbers_are_written_and_the_missing_extra_is_named(
    bench, model, monkeypatch
):
    import sys

    monkeypatch.delitem(sys.modules, "benchmarks.growths.plot", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = bench(
        model, "--size", 64, "--size", 128, "--size", 192, "--batch", 1, "--cameras", 0,
        "--threads", 1, "--rounds", 3, "--frames", 1,
    )  # fmt: skip
    assert code == 0
    assert "pip install 'pix2pix-edge[bench]'" in err
    (series,) = json.loads(Path("scaling.json").read_text(encoding="utf-8"))["series"]
    assert (series["batch"], series["cameras"], series["threads"]) == (None, None, None)
