"""Energy by rail. The folders that `lay` writes stand for the sensors of a Jetson and of a
processor with RAPL, which no machine of ours has; names and units are those that their kernels
give, the figures are invented. `Gpu` stands for nvidia-ml-py on a card that counts its energy."""

import sys
import types

import pytest

from benchmarks.conditions.power import (
    PERIODS_OF_A_TURN,
    PowerMeter,
    Rails,
    Turn,
    energy_json,
    needed_rails,
    power_json,
    rails,
)
from benchmarks.conditions.rails import JOULES, WATTS, Rail
from runtime.errors import UserError

MONITOR = "sys/class/hwmon/hwmon1"
S = 1_000_000_000


def lay(root, files):
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def ina3221(*found, folder=MONITOR):
    files = {f"{folder}/name": "ina3221", f"{folder}/update_interval": 140}
    for channel, (label, millivolts, milliamperes) in enumerate(found, 1):
        files |= {
            f"{folder}/in{channel}_label": label,
            f"{folder}/in{channel}_input": millivolts,
            f"{folder}/curr{channel}_input": milliamperes,
        }
    return files


def read(found):
    return {rail.name: rail.read() for rail in found.rails}


ORIN_NX = ina3221(("VDD_IN", 5000, 2840), ("VDD_CPU_GPU_CV", 5000, 1500), ("VDD_SOC", 5000, 600))


def test_the_input_of_a_jetson_is_the_total_and_its_parts_are_not_added(tmp_path):
    found = rails(lay(tmp_path, ORIN_NX), nvml=False)
    assert read(found) == pytest.approx({"vdd_in": 14.2, "vdd_cpu_gpu_cv": 7.5, "vdd_soc": 3})
    assert found.total_of == ("vdd_in",)
    assert {rail.update_ms for rail in found.rails} == {140}


def test_a_jetson_without_an_input_rail_adds_those_that_feed_no_other(tmp_path):
    files = ina3221(("VDD_GPU_SOC", 20000, 400), ("NC", 0, 0), ("VIN_SYS_5V0", 5000, 1000))
    files |= ina3221(("VDDQ_VDD2_1V8AO", 5000, 200), folder="sys/class/hwmon/hwmon2")
    found = rails(lay(tmp_path, files), nvml=False)
    assert found.total_of == ("vdd_gpu_soc", "vin_sys_5v0")
    assert "nc" not in read(found)
    assert read(found)["vddq_vdd2_1v8ao"] == pytest.approx(1)


def test_a_monitor_that_two_folders_lead_to_counts_once(tmp_path):
    real = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    lay(tmp_path, ina3221(("VDD_IN", 5000, 1000), folder=real))
    (tmp_path / "sys/class/hwmon").mkdir(parents=True)
    (tmp_path / MONITOR).symlink_to(tmp_path / real)
    assert [rail.name for rail in rails(tmp_path, nvml=False).rails] == ["vdd_in"]


def test_the_older_form_tells_milliwatts(tmp_path):
    place = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    lay(tmp_path, {f"{place}/rail_name_0": "POM_5V_IN", f"{place}/in_power0_input": 5250})
    found = rails(tmp_path, nvml=False)
    assert read(found) == {"pom_5v_in": 5.25}
    assert found.total_of == ("pom_5v_in",)


def test_of_other_chips_nobody_knows_what_feeds_what(tmp_path):
    lay(tmp_path, {f"{MONITOR}/name": "amdgpu", f"{MONITOR}/power1_input": 35_000_000})
    assert rails(tmp_path, nvml=False).total_of == ("amdgpu_1",)
    lay(tmp_path, {f"{MONITOR}/power2_input": 1_000_000, f"{MONITOR}/power2_label": "PPT"})
    found = rails(tmp_path, nvml=False)
    assert read(found) == {"amdgpu_1": 35, "ppt": 1}
    assert found.total_of == ()


CAP = "sys/class/powercap"
RAPL = {
    f"{CAP}/intel-rapl:0/name": "package-0",
    f"{CAP}/intel-rapl:0/energy_uj": 5_000_000,
    f"{CAP}/intel-rapl:0/max_energy_range_uj": 100_000_000,
    f"{CAP}/intel-rapl:0:0/name": "core",
    f"{CAP}/intel-rapl:0:0/energy_uj": 2_000_000,
    f"{CAP}/intel-rapl:0:1/name": "dram",
    f"{CAP}/intel-rapl:0:1/energy_uj": 1_000_000,
    f"{CAP}/intel-rapl-mmio:0/name": "package-0",
    f"{CAP}/intel-rapl-mmio:0/energy_uj": 7,
}


def test_cores_are_within_their_package_and_memory_is_beside_it(tmp_path):
    found = rails(lay(tmp_path, RAPL), nvml=False)
    assert read(found) == {"package-0": 5, "core-0": 2, "dram-0": 1}
    assert found.total_of == ("package-0", "dram-0")
    assert found.rails[0].wraps_at_j == 100


def test_a_meter_for_root_alone_is_told_with_the_command_that_opens_it(tmp_path):
    lay(tmp_path, RAPL)
    for counter in tmp_path.glob(f"{CAP}/*/energy_uj"):
        counter.unlink()
        counter.mkdir()  # is there and cannot be read, for root either
    assert "sudo chmod a+r" in rails(tmp_path, nvml=False).unreadable[0]
    with pytest.raises(UserError, match=r"^--power: .*RAPL.*sudo chmod a\+r /sys/class/powercap"):
        needed_rails(tmp_path, nvml=False)


def test_a_machine_without_a_rail_is_told_in_one_line(tmp_path):
    assert rails(tmp_path, nvml=False).rails == []
    with pytest.raises(UserError) as told:
        needed_rails(tmp_path, nvml=False)
    assert "\n" not in str(told.value)
    assert "leave out --power" in str(told.value)


class Gpu(types.ModuleType):
    class NVMLError(Exception):
        pass

    def __init__(self, told):
        super().__init__("pynvml")
        self.told = told
        self.opened = 0

    def nvmlInit(self):  # noqa: N802
        self.opened += 1

    def nvmlShutdown(self):  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def __getattr__(self, name):
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def tell(_):
            if name not in self.told:
                raise self.NVMLError("not supported")
            return self.told[name]

        return tell


def test_a_card_is_counted_in_joules_where_it_counts_else_in_watts(tmp_path, monkeypatch):
    told = {"nvmlDeviceGetName": "NVIDIA L4", "nvmlDeviceGetPowerUsage": 55_500}
    library = Gpu(told)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = rails(tmp_path)
    assert (read(found), found.rails[0].unit) == ({"NVIDIA L4": 55.5}, WATTS)
    told["nvmlDeviceGetTotalEnergyConsumption"] = 1_234_000
    counted = rails(lay(tmp_path, RAPL))
    assert read(counted)["NVIDIA L4"] == 1234
    assert counted.total_of == ("package-0", "dram-0", "NVIDIA L4")
    for opened in (found, counted):
        opened.close()
    assert library.opened == 0


class Script:
    """A rail that tells one value after the other, and the clock that goes with it: the stamps
    are those of the samples, to the nanosecond."""

    def __init__(self, unit, values, every_ns=S, wraps_at_j=None, name="in"):
        self.now_ns = -every_ns
        self.every_ns = every_ns
        self.values = iter(values)
        rail = Rail(name, "jetson", unit, self.read, None, wraps_at_j)
        self.found = Rails([rail], (name,))

    def read(self):
        return next(self.values)

    def meter(self, samples, every_ms=1.0):
        meter = PowerMeter(self.found, every_ms, clock_ns=lambda: self.now_ns)
        for _ in range(samples):
            self.now_ns += self.every_ns
            meter.sample()
        return meter


def test_watts_are_integrated_by_trapezoids_whose_ends_may_lie_between_samples():
    meter = Script(WATTS, [0, 10, 10, 30]).meter(4)
    assert meter.joules(0, 3 * S) == {"in": pytest.approx(5 + 10 + 20)}
    assert meter.joules(S // 2, S) == {"in": pytest.approx(0.5 * (5 + 10) / 2)}
    assert meter.joules(2 * S + S // 4, 2 * S + S // 2) == {"in": pytest.approx(0.25 * 17.5)}


def test_a_counter_is_read_between_its_samples_and_over_its_end():
    meter = Script(JOULES, [90, 98, 6, 10], wraps_at_j=100).meter(4)
    assert meter.joules(0, 3 * S) == {"in": pytest.approx(20)}
    assert meter.joules(S, 2 * S) == {"in": pytest.approx(8)}
    assert meter.joules(S // 2, S) == {"in": pytest.approx(4)}


def test_a_sensor_that_does_not_answer_is_bridged_and_never_taken_for_zero():
    meter = Script(WATTS, [10, None, 10]).meter(3)
    assert meter.joules(0, 2 * S) == {"in": pytest.approx(20)}


def test_a_time_without_samples_around_it_has_no_energy():
    script = Script(WATTS, [10, 10, 10])
    meter = script.meter(2)
    script.values = iter([None])
    assert meter.joules(-5, S) == {}
    assert meter.joules(0, 5 * S) == {}
    with pytest.raises(ValueError, match="is no time"):
        meter.joules(S, S)


def test_the_energy_of_a_row_is_that_of_its_own_turns():
    meter = Script(WATTS, [10, 10, 30, 30, 10, 10]).meter(6)
    meter.idle_watts = {"in": 4.0}
    ours = energy_json(meter, [Turn(0, S, 5), Turn(4 * S, 5 * S, 5)])
    other = energy_json(meter, [Turn(2 * S, 3 * S, 2)])
    assert ours["mj_per_frame"] == {"in": 2000}
    assert ours["mj_per_frame_total"] == 2000
    assert ours["mj_per_frame_above_idle_total"] == 1200
    assert ours["watts"] == {"in": {"mean": 10, "p95": 10}}
    assert other["mj_per_frame_total"] == 15_000
    assert (ours["frames"], ours["turns"], ours["turns_too_short"]) == (10, 2, 0)
    assert energy_json(meter, [Turn(0, S, 0)]) is None


def test_a_turn_that_is_short_against_the_sensor_is_counted_as_such(tmp_path):
    meter = PowerMeter(rails(lay(tmp_path, ORIN_NX), nvml=False), every_ms=20)
    assert meter.shortest_turn_ms == PERIODS_OF_A_TURN * 140
    short = Script(WATTS, [10, 10, 10]).meter(3, every_ms=1000)
    assert energy_json(short, [Turn(0, S, 1)])["turns_too_short"] == 1


def test_a_running_meter_samples_files_on_its_own_and_tells_how(tmp_path):
    lay(tmp_path, ORIN_NX)
    with PowerMeter(rails(tmp_path, nvml=False), every_ms=2) as meter:
        idle = meter.measure_idle(0.05)
        assert idle == pytest.approx({"vdd_in": 14.2, "vdd_cpu_gpu_cv": 7.5, "vdd_soc": 3})
        lay(tmp_path, {f"{MONITOR}/curr3_input": ""})  # a sensor breaks
    told = power_json(meter)
    assert told["samples"] >= 3
    assert told["total_of"] == ["vdd_in"]
    assert told["idle_watts_total"] == pytest.approx(14.2)
    assert [rail["name"] for rail in told["rails"]] == ["vdd_in", "vdd_cpu_gpu_cv", "vdd_soc"]
    assert 0 <= told["sampling_share_of_a_core"] < 1


def test_what_breaks_the_sampling_is_raised_to_whoever_asks():
    script = Script(WATTS, [10.0])
    with PowerMeter(script.found, 1.0) as meter:
        meter._thread.join(5)
        with pytest.raises(StopIteration):
            meter.joules(1, 2)
