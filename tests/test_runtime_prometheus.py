"""The figures for Prometheus, read over HTTP as Prometheus does."""

import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from runtime.errors import UserError
from runtime.monitor import Monitor
from runtime.prometheus_endpoint import (
    MetricsEndpoint,
    RunSnapshot,
    parse_address,
    served_metrics,
)
from runtime.stats import STAGES, Histogram, Statistics

parser = pytest.importorskip("prometheus_client.parser", reason="the extra metrics is missing")


def histogram(*latencies_ms):
    made = Histogram()
    for latency_ms in latencies_ms:
        made.add(latency_ms)
    return made


def runs():
    return {
        "front": RunSnapshot(
            frames_in=10,
            frames_out=7,
            dropped=3,
            reopened=2,
            lost=4,
            stages={"infer": histogram(0.7, 8, 18, 9000), "age": histogram(30, 40)},
        ),
        "back": RunSnapshot(frames_in=1, stages={"infer": histogram()}),
    }


def read(endpoint):
    with urllib.request.urlopen(endpoint.url, timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        text = response.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_are_told_for_each_source():
    with MetricsEndpoint("0", runs) as endpoint:
        told = read(endpoint)
    assert told["p2p_frames_in_total", "front"] == 10
    assert told["p2p_frames_out_total", "front"] == 7
    assert told["p2p_frames_dropped_total", "front"] == 3
    assert told["p2p_source_reopened_total", "front"] == 2
    assert told["p2p_source_lost_total", "front"] == 4
    assert told["p2p_frames_in_total", "back"] == 1


def test_stages_are_histograms_in_seconds_with_cumulative_buckets():
    with MetricsEndpoint("0", runs) as endpoint:
        told = read(endpoint)
    buckets = {
        next(float(label) for label in key[1:] if label not in ("front", "infer")): count
        for key, count in told.items()
        if key[0] == "p2p_stage_seconds_bucket" and "front" in key
    }
    assert buckets[0.0005] == 0
    assert buckets[0.001] == 1
    assert buckets[0.01] == 2
    assert buckets[0.02] == buckets[5.0] == 3
    assert buckets[float("inf")] == 4
    ordered = [buckets[bound] for bound in sorted(buckets)]
    assert ordered == sorted(ordered)
    assert told["p2p_stage_seconds_count", "front", "infer"] == 4
    assert told["p2p_stage_seconds_sum", "front", "infer"] == pytest.approx(9.0267)
    assert told["p2p_stage_seconds_count", "back", "infer"] == 0


def test_the_age_is_a_figure_of_its_own_and_no_stage():
    with MetricsEndpoint("0", runs) as endpoint:
        told = read(endpoint)
    assert told["p2p_frame_age_seconds_sum", "front"] == pytest.approx(0.07)
    assert told["p2p_frame_age_seconds_count", "front"] == 2
    assert not any(key[0].startswith("p2p_stage") and "age" in key for key in told)


def test_the_machine_is_told_in_base_units():
    machine = {
        "cpu_percent": 143.0,
        "rss_mb": 250.0,
        "power_w": 14.2,
        "power_vdd_soc_w": 3.0,
        "power_vdd_in_w": 14.2,
        "gpu_power_w": 55.0,
        "gpu_clock_mhz": 918.0,
        "temperature_c": 61.5,
        "throttled": 1.0,
        "threads": 12.0,
    }
    with MetricsEndpoint("0", runs, lambda: machine) as endpoint:
        told = read(endpoint)
    expected = {
        ("p2p_cpu_ratio",): 1.43,
        ("p2p_rss_bytes",): 250e6,
        ("p2p_power_watts",): 14.2,
        ("p2p_rail_power_watts", "vdd_soc"): 3.0,
        ("p2p_rail_power_watts", "vdd_in"): 14.2,
        ("p2p_gpu_power_watts",): 55.0,
        ("p2p_gpu_clock_hertz",): 918e6,
        ("p2p_temperature_celsius",): 61.5,
        ("p2p_throttled",): 1.0,
        ("p2p_threads",): 12.0,
    }
    assert {key: told[key] for key in expected} == pytest.approx(expected)


def test_every_name_keeps_prometheus_rules():
    with MetricsEndpoint("0", runs, lambda: {"cpu_percent": 1.0}) as endpoint:
        text = urllib.request.urlopen(endpoint.url, timeout=10).read().decode()
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(families) == len(set(families)) == 8
    for name, kind in families:
        assert re.fullmatch(r"p2p_[a-z0-9_]+", name)
        assert name.endswith("_total") == (kind == "counter")
    assert len(re.findall(r"^# HELP ", text, re.MULTILINE)) == len(families)


def went_out(stats, age_ms):
    stages_ms = {stage: 1.0 for stage in STAGES if stage not in ("wait", "age")}
    stats.came_in()
    stats.went_out(0, 0, int(age_ms * 1e6), stages_ms)


def test_a_run_of_two_sources_is_told_source_by_source_with_its_machine():
    stats = Statistics(sources=("front", "back"))
    went_out(stats.of("front"), 30.0)
    went_out(stats.of("front"), 50.0)
    went_out(stats.of("back"), 200.0)
    stats.of("back").was_dropped()
    with Monitor() as monitor, served_metrics("0", stats, monitor) as endpoint:
        told = read(endpoint)
    assert told["p2p_frames_out_total", "front"] == 2
    assert told["p2p_frames_out_total", "back"] == 1
    assert told["p2p_frames_dropped_total", "back"] == 1
    assert told["p2p_frame_age_seconds_sum", "front"] == pytest.approx(0.08)
    assert told["p2p_stage_seconds_count", "back", "infer"] == 1
    assert told[("p2p_threads",)] >= 1
    assert sum(key[0] == "p2p_frames_in_total" for key in told) == 2


def test_figures_are_whole_while_a_run_writes_them():
    stats = Statistics()
    stop = threading.Event()

    def run():
        for n in range(10**9):
            went_out(stats, 1 + n % 977)
            if stop.is_set():
                return

    writer = threading.Thread(target=run)
    with Monitor() as monitor, served_metrics("0", stats, monitor) as endpoint:
        writer.start()
        try:
            for _ in range(20):
                told = read(endpoint)
                buckets = [
                    count
                    for key, count in told.items()
                    if key[0] == "p2p_frame_age_seconds_bucket"
                ]
                assert buckets == sorted(buckets)
                assert buckets[-1] == told["p2p_frame_age_seconds_count", ""]
        finally:
            stop.set()
            writer.join()


def test_each_request_reads_the_figures_anew_and_none_is_read_before():
    asked = []

    def counted():
        asked.append(None)
        return {"front": RunSnapshot(frames_in=len(asked))}

    with MetricsEndpoint("0", counted) as endpoint:
        assert asked == []
        assert read(endpoint)["p2p_frames_in_total", "front"] == 1
        assert read(endpoint)["p2p_frames_in_total", "front"] == 2


def test_other_paths_say_where_the_figures_are():
    with MetricsEndpoint("0", runs) as endpoint:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(endpoint.url.replace("/metrics", "/"), timeout=10)
        assert refused.value.code == 404
        assert b"/metrics" in refused.value.read()  # not later: the end cuts answers off


def test_this_machine_alone_can_read_unless_a_host_is_given():
    with MetricsEndpoint("0", runs) as endpoint:
        assert endpoint.url.startswith("http://127.0.0.1:")
    with MetricsEndpoint("localhost:0", runs) as endpoint:
        assert read(endpoint)


def test_an_address_of_ip_version_6_is_taken():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with MetricsEndpoint("[::1]:0", runs) as endpoint:
        assert endpoint.url.startswith("http://[::1]:")
        assert read(endpoint)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::]:65535", ("::", 65535)),
    ],
)
def test_addresses(address, expected):
    assert parse_address(address) == expected


@pytest.mark.parametrize("address", ["", "x", "-1", "65536", ":80", "host:", "::1:80", "1.5", "²"])
def test_what_is_no_address_is_refused_in_one_line(address):
    with pytest.raises(UserError, match=r"PORT or HOST:PORT") as refused:
        MetricsEndpoint(address, runs)
    assert "\n" not in str(refused.value)


def test_a_port_in_use_is_told_in_one_line():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match=r"the port is in use.*--metrics HOST:PORT") as refused,
    ):
        MetricsEndpoint(str(taken.getsockname()[1]), runs)
    assert "\n" not in str(refused.value)


def test_a_host_that_is_not_ours_is_told_in_one_line():
    with pytest.raises(UserError, match="no address of this machine"):
        MetricsEndpoint("192.0.2.1:0", runs)
    with pytest.raises(UserError, match="no such host"):
        MetricsEndpoint("nothing.invalid:0", runs)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may use any")
def test_a_port_that_needs_root_is_told_in_one_line():
    with pytest.raises(UserError, match="not allowed"):
        MetricsEndpoint("1", runs)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UserError, match=re.escape("pip install 'pix2pix-edge[metrics]'")):
        MetricsEndpoint("0", runs)


def names():
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith("p2p-metrics")
    ]


def test_closing_leaves_no_thread_and_frees_the_port():
    with MetricsEndpoint("0", runs) as endpoint:
        read(endpoint)
        assert "p2p-metrics" in names()
    endpoint.close()
    assert names() == []
    MetricsEndpoint(str(port_of(endpoint)), runs).close()


def port_of(endpoint):
    return int(endpoint.url.split(":")[2].split("/")[0])


def test_a_client_that_says_nothing_does_not_hold_up_the_next_one():
    with (
        MetricsEndpoint("0", runs) as endpoint,
        socket.create_connection(("127.0.0.1", port_of(endpoint))),
    ):
        time.sleep(0.3)
        assert read(endpoint)


def test_the_end_does_not_wait_for_a_client_that_says_nothing(monkeypatch):
    monkeypatch.setattr("runtime.prometheus_endpoint._Handler.timeout", 60)
    endpoint = MetricsEndpoint("0", runs)
    with socket.create_connection(("127.0.0.1", port_of(endpoint))) as silent:
        silent.sendall(b"GET /metrics HTTP/1.1\r\n")
        time.sleep(0.3)
        start_s = time.monotonic()
        endpoint.close()
        assert time.monotonic() - start_s < 10
    assert names() == []


def test_a_figure_that_fails_is_an_error_of_that_request_alone(capfd):
    broken = [True]

    def sometimes():
        if broken:
            raise RuntimeError("the figures are broken")
        return runs()

    with MetricsEndpoint("0", sometimes) as endpoint:
        with pytest.raises(urllib.error.HTTPError) as refused:
            read(endpoint)
        assert refused.value.code == 500
        broken.clear()
        assert read(endpoint)
    assert "the figures are broken" in capfd.readouterr().err


def test_a_client_that_drips_holds_nobody_up_and_is_hung_up_on():
    ended = threading.Event()
    with (
        MetricsEndpoint("0", runs) as endpoint,
        socket.create_connection(("127.0.0.1", port_of(endpoint))) as slow,
    ):

        def drip():
            try:
                for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 400:
                    slow.sendall(bytes([byte]))
                    time.sleep(0.1)
            except OSError:
                ended.set()

        dripping = threading.Thread(target=drip)
        dripping.start()
        time.sleep(0.5)
        start_s = time.monotonic()
        assert read(endpoint)
        assert time.monotonic() - start_s < 2
        assert ended.wait(10), "two seconds are enough for a request"
        dripping.join()
    assert names() == []
