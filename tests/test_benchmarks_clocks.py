"""Clocks, heat and throttling. The folders stand for the sensors of a Jetson and of a PC, which no
machine of ours has; names and units are those that their kernels give, the figures invented."""

import pytest

from benchmarks.conditions.clocks import ClockWatch, same_conditions
from runtime.machine import power_modes

CPU = "sys/devices/system/cpu"
GPU = "sys/class/devfreq/17000000.gpu"
THERMAL = "sys/class/thermal"


def lay(root, files):
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def cluster(number=0, least=729600, most=1984000, now=1113600, governor="schedutil"):
    folder = f"{CPU}/cpufreq/policy{number}"
    return {
        f"{folder}/scaling_cur_freq": now,
        f"{folder}/scaling_min_freq": least,
        f"{folder}/scaling_max_freq": most,
        f"{folder}/cpuinfo_max_freq": 1984000,
        f"{folder}/scaling_governor": governor,
        f"{folder}/related_cpus": " ".join(str(number + one) for one in range(4)),
    }


ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX\0",
    **cluster(0),
    **cluster(4),
    f"{GPU}/cur_freq": 306000000,
    f"{GPU}/min_freq": 306000000,
    f"{GPU}/max_freq": 918000000,
    f"{GPU}/available_frequencies": "306000000 612000000 918000000",
    f"{GPU}/governor": "nvhost_podgov",
    "sys/class/devfreq/15340000.vic/cur_freq": 115200000,
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": 3199000000,
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal",
    f"{THERMAL}/thermal_zone0/temp": 48500,
    f"{THERMAL}/thermal_zone1/type": "cv0-thermal",
    f"{THERMAL}/thermal_zone1/temp": -256000,
    f"{THERMAL}/cooling_device1/type": "gpu-throttle-alert",
    f"{THERMAL}/cooling_device1/cur_state": 0,
    "sys/class/hwmon/hwmon3/oc3_event_cnt": 27,
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull",
}


def watch(root):
    return ClockWatch(root, every_s=3600, nvml=False)


def test_a_machine_that_tells_nothing_is_passed_over_in_silence(tmp_path):
    with watch(tmp_path) as clocks:
        pass
    assert clocks.to_json() is None
    assert clocks.warnings() == []


def test_clocks_are_told_before_during_and_after(tmp_path):
    with watch(lay(tmp_path, ORIN)) as clocks:
        lay(tmp_path, {f"{GPU}/cur_freq": 918000000, f"{THERMAL}/thermal_zone0/temp": 61000})
        clocks.sample()
        lay(tmp_path, {f"{GPU}/cur_freq": 612000000})
    told = clocks.to_json()
    domains = {domain["name"]: domain for domain in told["domains"]}
    assert list(domains) == ["cpu 0-3", "cpu 4-7", "gpu 17000000.gpu", "memory (EMC)"]
    gpu = domains["gpu 17000000.gpu"]
    assert gpu["mhz"] == {"before": 306, "least": 306, "p50": 612, "most": 918, "after": 612}
    assert (gpu["lowest_mhz"], gpu["highest_mhz"], gpu["possible_mhz"]) == (306, 918, 918)
    assert gpu["locked"] is False
    assert domains["memory (EMC)"]["mhz"]["p50"] == 3199
    assert list(told["temperatures_c"]) == ["cpu-thermal"]  # -256: a block that is switched off
    assert told["temperatures_c"]["cpu-thermal"]["most"] == 61
    assert told["slowed_down"] == {}


def test_a_loose_clock_of_a_jetson_is_mended_by_jetson_clocks(tmp_path):
    with watch(lay(tmp_path, ORIN)) as clocks:
        pass
    assert len(clocks.warnings()) == 1
    assert "sudo jetson_clocks" in clocks.warnings()[0]
    locked = {**cluster(0, 1984000), **cluster(4, 1984000), f"{GPU}/min_freq": 918000000}
    assert watch(lay(tmp_path, locked)).warnings() == []


@pytest.mark.parametrize(("stored", "told"), [("0000", "15W"), ("0001", "mode 1")])
def test_a_slow_power_mode_is_told_with_the_number_that_the_fastest_has_there(
    tmp_path, stored, told
):
    lay(tmp_path, {**ORIN, "var/lib/nvpmodel/status": f"pmode:{stored} fmode:fanNull"})
    assert power_modes(tmp_path) == {0: "15W", 2: "MAXN_SUPER"}
    [line] = [line for line in watch(tmp_path).warnings() if "nvpmodel" in line]
    assert line == f"the power mode is {told}, not the fastest one: sudo nvpmodel -m 2"


def test_throttling_is_what_rang_or_was_set_meanwhile(tmp_path):
    with watch(lay(tmp_path, ORIN)) as clocks:
        lay(tmp_path, {f"{THERMAL}/cooling_device1/cur_state": 1})
        clocks.sample()
        lay(
            tmp_path,
            {
                f"{THERMAL}/cooling_device1/cur_state": 0,
                "sys/class/hwmon/hwmon3/oc3_event_cnt": 29,
            },
        )
    slowed = {"gpu-throttle-alert": 1, "over-current oc3": 2}
    assert clocks.slowed_down() == clocks.to_json()["slowed_down"] == slowed
    assert sum("slowed itself down" in line for line in clocks.warnings()) == 2


def test_a_pc_is_told_by_its_governor_and_its_own_counters(tmp_path):
    counters = {
        f"{CPU}/cpu{core}/thermal_throttle/{kind}_throttle_count": 4
        for core in (0, 1)
        for kind in ("core", "package")
    }
    with watch(lay(tmp_path, {**cluster(governor="powersave"), **counters})) as clocks:
        lay(tmp_path, dict.fromkeys(counters, 7))
    assert clocks.slowed_down() == {"heat of the core": 6, "heat of the package": 3}
    assert "sudo cpupower frequency-set -g performance" in clocks.warnings()[0]
    lay(tmp_path, cluster(governor="performance"))
    assert watch(tmp_path).warnings() == []


def environment(mode=None, governor=None, clocks=None):
    return {"power_mode": mode, "cpu_governor": governor, "clocks": clocks}


def test_runs_of_two_power_modes_are_not_comparable():
    why = same_conditions(environment("MAXN"), environment("15W"))
    assert "MAXN and 15W" in why
    assert same_conditions(environment("MAXN"), environment("MAXN")) == ""
    assert "no power mode" in same_conditions(environment(), environment("15W"))


def test_runs_under_other_governors_or_limits_are_not_comparable(tmp_path):
    loose = environment("MAXN", clocks=watch(lay(tmp_path, ORIN)).to_json())
    assert same_conditions(loose, loose) == ""
    lay(tmp_path, {f"{GPU}/min_freq": 918000000})
    locked = environment("MAXN", clocks=watch(tmp_path).to_json())
    assert "lowest clocks of gpu 17000000.gpu" in same_conditions(loose, locked)
    assert same_conditions(loose, environment("MAXN")) == ""  # an older file tells less
    slow, fast = environment(governor="powersave"), environment(governor="performance")
    assert "powersave and performance" in same_conditions(slow, fast)
