"""What the machine does. A Jetson and a GPU are simulated: no machine of ours holds them. The
Jetsons are trees of files with the names and units that their kernels give (see runtime/jetson.py)
and invented figures; the GPU is a module with the functions of nvidia-ml-py."""

import gc
import mmap
import statistics
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from runtime.jetson import JetsonSensors
from runtime.machine import read_number
from runtime.monitor import Monitor
from runtime.nvml import NvmlGpu


def lay(root, files):
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


HWMON, THERMAL = "sys/class/hwmon", "sys/class/thermal"


def rail(monitor, channel, name, millivolts, milliamperes):
    return {
        f"{HWMON}/{monitor}/name": "ina3221",
        f"{HWMON}/{monitor}/in{channel}_label": name,
        f"{HWMON}/{monitor}/in{channel}_input": millivolts,
        f"{HWMON}/{monitor}/curr{channel}_input": milliamperes,
    }


ORIN_NX = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "sys/devices/platform/gpu.0/load": 873,
    "sys/class/devfreq/17000000.gpu/cur_freq": 918000000,
    "sys/class/devfreq/15340000.vic/cur_freq": 115200000,
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 1984000,
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": 729600,
    **rail("hwmon1", 1, "VDD_IN", 5000, 2840),
    **rail("hwmon1", 2, "VDD_CPU_GPU_CV", 5000, 1500),
    **rail("hwmon1", 3, "VDD_SOC", 5000, 600),
    f"{HWMON}/hwmon1/in7_label": "sum of shunt voltages",
    f"{HWMON}/hwmon0/name": "pwmfan",
    f"{HWMON}/hwmon3/name": "soctherm_oc",
    f"{HWMON}/hwmon3/oc1_event_cnt": 0,
    f"{HWMON}/hwmon3/oc3_event_cnt": 27,
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal",
    f"{THERMAL}/thermal_zone0/temp": 70000,
    f"{THERMAL}/thermal_zone8/type": "tj-thermal",
    f"{THERMAL}/thermal_zone8/temp": 61500,
    f"{THERMAL}/cooling_device0/type": "pwm-fan",
    f"{THERMAL}/cooling_device0/cur_state": 3,
    f"{THERMAL}/cooling_device1/type": "gpu-throttle-alert",
    f"{THERMAL}/cooling_device1/cur_state": 0,
    f"{THERMAL}/cooling_device2/type": "devfreq-17000000.gpu",
    f"{THERMAL}/cooling_device2/cur_state": 4,
}


def test_an_orin_nx_tells_load_clocks_watts_and_heat(tmp_path):
    assert JetsonSensors(lay(tmp_path, ORIN_NX)).sample() == pytest.approx(
        {
            "gpu_percent": 87.3,
            "gpu_clock_mhz": 918,
            "cpu_clock_mhz": 1984,
            "power_vdd_in_w": 14.2,
            "power_vdd_cpu_gpu_cv_w": 7.5,
            "power_vdd_soc_w": 3.0,
            "power_w": 14.2,
            "temperature_c": 61.5,
            "throttled": 0,
        }
    )


def test_an_agx_orin_without_an_input_rail_tells_the_sum_of_its_outer_rails(tmp_path):
    lay(
        tmp_path,
        {
            "sys/devices/platform/gpu.0/load": 0,
            **rail("hwmon1", 1, "VDD_GPU_SOC", 20000, 400),
            **rail("hwmon1", 2, "VDD_CPU_CV", 20000, 100),
            **rail("hwmon1", 3, "VIN_SYS_5V0", 5000, 1000),
            **rail("hwmon2", 2, "VDDQ_VDD2_1V8AO", 5000, 200),
            f"{HWMON}/hwmon2/in1_label": "NC",
        },
    )
    figures = JetsonSensors(tmp_path).sample()
    assert figures["power_w"] == pytest.approx(8 + 2 + 5)
    assert figures["power_vddq_vdd2_1v8ao_w"] == pytest.approx(1)
    assert not any("nc" in name for name in figures)
    (tmp_path / HWMON / "hwmon1/curr2_input").unlink()
    assert "power_w" not in JetsonSensors(tmp_path).sample()  # a sum that lacks a rail is wrong


def test_a_thor_tells_the_power_of_its_carrier_and_the_clock_of_its_shaders(tmp_path):
    lay(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit",
            "sys/class/devfreq/gpu-gpc-0/cur_freq": 1575000000,
            "sys/class/devfreq/gpu-nvd-0/cur_freq": 1692000000,
            **rail("hwmon1", 1, "VDD_GPU", 10000, 1200),
            **rail("hwmon1", 3, "VIN_SYS_5V0", 5000, 1000),
            f"{HWMON}/hwmon2/name": "ina238",
            f"{HWMON}/hwmon2/in1_label": "VIN",
            f"{HWMON}/hwmon2/in1_input": 20000,
            f"{HWMON}/hwmon2/curr1_input": 2000,
            f"{HWMON}/hwmon2/power1_input": 41000000,
        },
    )
    figures = JetsonSensors(tmp_path).sample()
    assert figures["power_w"] == pytest.approx(41)
    assert figures["gpu_clock_mhz"] == pytest.approx(1575)
    assert "gpu_percent" not in figures  # NVML tells it there


@pytest.mark.parametrize(
    "place",
    ["sys/devices/gpu.0/load", "sys/devices/platform/bus@0/17000000.gpu/load"],
)
def test_the_load_is_found_where_other_jetpacks_have_it(tmp_path, place):
    assert JetsonSensors(lay(tmp_path, {place: 125})).sample() == {"gpu_percent": 12.5}


def test_throttled_is_told_by_an_alert_and_by_a_new_over_current_but_not_by_a_fan(tmp_path):
    sensors = JetsonSensors(lay(tmp_path, ORIN_NX))
    assert sensors.sample()["throttled"] == 0
    lay(tmp_path, {f"{HWMON}/hwmon3/oc3_event_cnt": 28})
    assert sensors.sample()["throttled"] == 1
    assert sensors.sample()["throttled"] == 0  # it was then, and is no more
    lay(tmp_path, {f"{THERMAL}/cooling_device1/cur_state": 1})
    assert sensors.sample()["throttled"] == 1


def test_without_an_overall_zone_the_hottest_one_that_is_switched_on_counts(tmp_path):
    lay(
        tmp_path,
        {
            "sys/devices/gpu.0/load": 0,
            f"{THERMAL}/thermal_zone0/type": "CPU-therm",
            f"{THERMAL}/thermal_zone0/temp": 48500,
            f"{THERMAL}/thermal_zone1/type": "GPU-therm",
            f"{THERMAL}/thermal_zone1/temp": -256000,
            f"{THERMAL}/thermal_zone2/type": "PMIC-Die",
            f"{THERMAL}/thermal_zone2/temp": 100000,
        },
    )
    assert JetsonSensors(tmp_path).sample()["temperature_c"] == 48.5


def test_a_sensor_that_cannot_be_read_is_absent_until_it_can(tmp_path):
    sensors = JetsonSensors(lay(tmp_path, ORIN_NX))
    load, zone = tmp_path / "sys/devices/platform/gpu.0/load", tmp_path / THERMAL
    load.write_text("N/A\n")
    (zone / "thermal_zone8/temp").unlink()
    figures = sensors.sample()
    assert "gpu_percent" not in figures
    assert "temperature_c" not in figures
    load.write_text("500\n")
    assert sensors.sample()["gpu_percent"] == 50


def test_no_jetson_has_no_sensors_even_where_the_kernel_has_thermal_zones(tmp_path):
    lay(tmp_path, {f"{THERMAL}/thermal_zone0/type": "cpu", f"{THERMAL}/thermal_zone0/temp": 40000})
    sensors = JetsonSensors(tmp_path)
    assert not sensors.present
    assert sensors.sample() == {}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_this_process_is_told_as_it_is(tmp_path):
    monitor = Monitor(again_after_s=0)
    gc.collect()
    before = monitor.sample()
    assert before["rss_mb"] > 10
    stop = threading.Event()
    ballast = mmap.mmap(-1, 200_000_000)  # new pages, whatever the process has lying idle
    ballast.write(bytes(1_000_000) * 200)
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with (tmp_path / "open").open("w"):
        after = monitor.sample()
    stop.set()
    thread.join()
    assert after["threads"] == before["threads"] + 1
    assert after["open_files"] == before["open_files"] + 1
    assert after["rss_mb"] - before["rss_mb"] == pytest.approx(len(ballast) / 1e6, rel=0.3)
    ballast.close()


def test_the_processor_is_told_as_a_share_of_one_core_since_the_last_sample():
    monitor = Monitor(again_after_s=0)
    time.sleep(0.2)
    idle = monitor.sample()["cpu_percent"]
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    busy = monitor.sample()["cpu_percent"]
    assert idle < busy
    assert 5 < busy < 300


def test_the_whole_machine_is_told_between_two_samples(tmp_path):
    lay(tmp_path, {"proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1"})
    lay(tmp_path, {"proc/meminfo": "MemTotal: 2000000 kB\nMemFree: 5 kB\nMemAvailable: 500000 kB"})
    monitor = Monitor(tmp_path, again_after_s=0)
    lay(tmp_path, {"proc/stat": "cpu  150 0 125 725 100 0 0 0 0 0"})
    figures = monitor.sample()
    assert figures["machine_cpu_percent"] == pytest.approx(75)
    assert figures["machine_memory_mb"] == pytest.approx(1536)


def test_a_second_who_asks_at_once_gets_the_same_in_a_dict_of_its_own():
    monitor = Monitor(again_after_s=60)
    first = monitor.sample()
    first["mine"] = 1.0
    second = monitor.sample()
    assert second == {name: figure for name, figure in first.items() if name != "mine"}


def test_a_machine_that_tells_nothing_raises_nothing(tmp_path):
    with Monitor(tmp_path, again_after_s=0) as monitor:
        assert "rss_mb" not in monitor.sample()
    assert read_number(str(tmp_path)) is None


def test_a_sample_of_an_orin_costs_little(tmp_path):
    monitor = Monitor(lay(tmp_path, ORIN_NX), again_after_s=0)
    took_ms = []
    for _ in range(50):
        start_ns = time.perf_counter_ns()
        monitor.sample()
        took_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    assert statistics.median(took_ms) < 20


class GpuLibrary(types.ModuleType):
    """Stands for nvidia-ml-py on a machine with a GPU."""

    NVML_CLOCK_GRAPHICS = NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, told):
        super().__init__("pynvml")
        self.told, self.opened, self.device = told, 0, None

    def nvmlInit(self):  # noqa: N802
        self.opened += 1

    def nvmlShutdown(self):  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self.device = index
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        self.device = uuid
        return uuid

    def __getattr__(self, name):
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def read(*_):
            if name not in self.told:
                raise self.NVMLError("not supported")
            return self.told[name]

        return read


TOLD = {
    "nvmlDeviceGetUtilizationRates": types.SimpleNamespace(gpu=42),
    "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(used=3_500_000_000),
    "nvmlDeviceGetPowerUsage": 55_500,
    "nvmlDeviceGetClockInfo": 1800,
    "nvmlDeviceGetTemperature": 66,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4,
}


def test_a_desktop_gpu_is_told_through_nvml(monkeypatch, tmp_path):
    library = GpuLibrary(TOLD)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with Monitor(tmp_path) as monitor:
        figures = monitor.sample()
        assert library.opened == 1
    assert library.opened == 0
    expected = {
        "gpu_percent": 42,
        "gpu_memory_mb": 3500,
        "gpu_power_w": 55.5,
        "gpu_clock_mhz": 1800,
        "gpu_temperature_c": 66,
        "throttled": 0,  # 0x4 is the power cap, which full load reaches
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    library.told = {**TOLD, "nvmlDeviceGetCurrentClocksThrottleReasons": 0x24}
    assert NvmlGpu().sample()["throttled"] == 1


def test_the_gpu_is_the_one_that_cuda_uses(monkeypatch):
    library = GpuLibrary(TOLD)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    for chosen, device in (("", 0), ("2,3", 2), ("GPU-1234-ab", "GPU-1234-ab")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        NvmlGpu()
        assert library.device == device


def test_on_an_orin_the_kernel_tells_what_nvml_refuses(monkeypatch, tmp_path):
    library = GpuLibrary({"nvmlDeviceGetMemoryInfo": types.SimpleNamespace(used=1_000_000)})
    monkeypatch.setitem(sys.modules, "pynvml", library)
    figures = Monitor(lay(tmp_path, ORIN_NX)).sample()
    assert figures["gpu_percent"] == pytest.approx(87.3)
    assert figures["gpu_memory_mb"] == 1
    assert "gpu_power_w" not in figures


def test_without_the_library_or_a_driver_there_is_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert NvmlGpu().sample() == {}

    library = GpuLibrary(TOLD)

    def no_driver():
        raise library.NVMLError("driver not loaded")

    library.nvmlInit = no_driver
    monkeypatch.setitem(sys.modules, "pynvml", library)
    gpu = NvmlGpu()
    assert not gpu.present
    gpu.close()


def test_the_real_library_has_every_name_that_is_used():
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    names = [*TOLD, "nvmlInit", "nvmlShutdown", "NVMLError", "nvmlDeviceGetHandleByIndex"]
    names += ["nvmlDeviceGetHandleByUUID", "NVML_CLOCK_GRAPHICS", "NVML_TEMPERATURE_GPU"]
    assert [name for name in names if not hasattr(library, name)] == []
    NvmlGpu().close()  # with or without a driver, nothing is raised
