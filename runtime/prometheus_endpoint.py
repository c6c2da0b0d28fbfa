"""Figures of a running stream for Prometheus: `/metrics` over HTTP."""

from __future__ import annotations

import contextlib
import errno
import math
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from runtime.errors import UserError
from runtime.monitor import Monitor
from runtime.stats import STAGES, Statistics

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_BOUNDS_MS = (0.25, 0.5, 1, 2, 5, 10, 15, 20, 33, 50, 75, 100, 150, 250, 500, 1000, 2000, 5000)
_AGE = "age"
_READ_WITHIN_S = 2.0
_MOST_CLIENTS = 16
"""At once; a further one is hung up on."""
_MENDS = "choose another: --metrics HOST:PORT"
_UNITS = (
    ("_percent", "_ratio", 1e-2),
    ("_mb", "_bytes", 1e6),
    ("_w", "_watts", 1.0),
    ("_mhz", "_hertz", 1e6),
    ("_c", "_celsius", 1.0),
)
_RAIL = re.compile(r"power_(\w+)_w")


class Latencies(Protocol):
    """What is read of a `runtime.stats.Histogram`, or of a copy of one."""

    @property
    def total(self) -> int:
        """How many there are."""

    @property
    def sum_ms(self) -> float: ...

    def counts_below(self, bounds_ms: Sequence[float]) -> list[int]:
        """For each bound, ascending, how many are not above it."""


@dataclass(frozen=True)
class RunSnapshot:
    """One source's figures at one moment. The histograms must not change while they are read."""

    frames_in: int = 0
    frames_out: int = 0
    dropped: int = 0
    reopened: int = 0
    lost: int = 0
    """How often a live source stalled, broke or vanished."""
    stages: Mapping[str, Latencies] = field(default_factory=dict)
    """By the names of `runtime.stats.STAGES`."""


_COUNTERS: tuple[tuple[str, str, Callable[[RunSnapshot], int]], ...] = (
    ("p2p_frames_in", "Frames that the source gave.", lambda run: run.frames_in),
    ("p2p_frames_out", "Frames that the sinks took.", lambda run: run.frames_out),
    ("p2p_frames_dropped", "Frames that a newer one replaced.", lambda run: run.dropped),
    ("p2p_source_reopened", "Times the source was opened again.", lambda run: run.reopened),
    ("p2p_source_lost", "Times the source stalled, broke or vanished.", lambda run: run.lost),
)


class MetricsEndpoint:
    """Serves `/metrics` from threads of its own until it is closed.

    A client has two seconds for its request and the answer, and holds no other one up. Each
    request reads the figures anew; between requests it costs nothing.

    Args:
        address: `PORT` (this machine alone can read it), `HOST:PORT` or `[HOST]:PORT`; port 0
            takes any that is free.
        runs: gives the figures of each source by its name.
        machine: gives the machine's, as `runtime.monitor.Monitor.sample` does.

    Raises:
        UserError: prometheus_client is not installed, the address is none, or the port is in
            use or not allowed.
    """

    def __init__(
        self,
        address: str,
        runs: Callable[[], Mapping[str, RunSnapshot]],
        machine: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        host, port = parse_address(address)
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError:
            raise UserError(
                "--metrics without the package prometheus_client",
                "it to be installed",
                "pip install 'pix2pix-edge[metrics]'",
            ) from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(runs, machine))  # type: ignore[arg-type]
        metrics = make_wsgi_app(registry)
        reading = threading.Lock()

        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if environ.get("PATH_INFO") == "/metrics":
                with reading:  # the machine's figures are since the last time they were read
                    answered: Iterable[bytes] = metrics(environ, start)
                return answered
            start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"the figures are at /metrics\n"]

        self._server = _opened(host, port)
        self._server.set_app(answer)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/metrics"
        """Where to read them."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="p2p-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving, also in the middle of a request; may be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def __enter__(self) -> MetricsEndpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def served_metrics(address: str, stats: Statistics, monitor: Monitor) -> MetricsEndpoint:
    """Serve the figures of a run and of the machine it runs on.

    Raises:
        UserError: as `MetricsEndpoint`.
    """
    return MetricsEndpoint(address, lambda: snapshots(stats), monitor.sample)


def snapshots(stats: Statistics) -> dict[str, RunSnapshot]:
    """The figures of each source of a run; of the only one under an empty name, which is no
    label to Prometheus."""
    return {
        name: RunSnapshot(
            frames_in=of_one.frames_in,
            frames_out=of_one.frames_out,
            dropped=of_one.dropped,
            reopened=of_one.reopened,
            lost=of_one.lost,
            stages={stage: of_one.stage(stage) for stage in STAGES},
        )
        for name, of_one in (stats.by_source or {"": stats}).items()
    }


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `PORT`, `HOST:PORT` or `[HOST]:PORT`; 127.0.0.1 without a host.

    Raises:
        UserError: something else, or a port above 65535.
    """
    host, colon, port = address.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    wrong_host = (colon and not host) or (":" in host and not bracketed)
    if wrong_host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise UserError(
            f"--metrics {address}", "PORT or HOST:PORT, the port 0 to 65535", "try --metrics 9464"
        )
    return host or "127.0.0.1", int(port)


class _Collector:
    """Makes Prometheus' families of the figures when it is asked.

    Names and units: prometheus.io/docs/practices/naming (seconds, bytes, ratios; `_total`).
    """

    def __init__(
        self,
        runs: Callable[[], Mapping[str, RunSnapshot]],
        machine: Callable[[], Mapping[str, float]] | None,
    ) -> None:
        self._runs = runs
        self._machine = machine

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        runs = self._runs()
        for name, told, count_of in _COUNTERS:
            counter = CounterMetricFamily(name, told, labels=["source"])
            for source, run in runs.items():
                counter.add_metric([source], count_of(run))
            yield counter
        stages = HistogramMetricFamily(
            "p2p_stage_seconds", "How long a stage took for a frame.", labels=["source", "stage"]
        )
        ages = HistogramMetricFamily(
            "p2p_frame_age_seconds",
            "From the frame in hand to shown or written.",
            labels=["source"],
        )
        for source, run in runs.items():
            for stage, latencies in run.stages.items():
                buckets = _buckets(latencies)
                sum_s = latencies.sum_ms / 1e3
                if stage == _AGE:
                    ages.add_metric([source], buckets, sum_s)
                else:
                    stages.add_metric([source, stage], buckets, sum_s)
        yield stages
        yield ages
        if self._machine is not None:
            yield from _machine_gauges(self._machine())

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: registering would else ask for the figures."""
        return []


def _buckets(latencies: Latencies) -> list[tuple[str, float]]:
    counts = latencies.counts_below(_BOUNDS_MS)
    bounds = [repr(bound / 1e3) for bound in _BOUNDS_MS]
    return [*zip(bounds, map(float, counts), strict=True), ("+Inf", float(latencies.total))]


def _machine_gauges(figures: Mapping[str, float]) -> Iterable[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    rails = GaugeMetricFamily("p2p_rail_power_watts", "Power of one rail.", labels=["rail"])
    for key, figure in figures.items():
        if rail := _RAIL.fullmatch(key):
            rails.add_metric([rail[1]], figure)
            continue
        name, factor = key, 1.0
        for ending, base_ending, to_base in _UNITS:
            if key.endswith(ending):
                name, factor = key.removesuffix(ending) + base_ending, to_base
                break
        yield GaugeMetricFamily(f"p2p_{name}", f"{key} of this machine.", figure * factor)
    if rails.samples:
        yield rails


class _Handler(WSGIRequestHandler):
    timeout = _READ_WITHIN_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """A request is no news."""


class _Server(WSGIServer):
    """Answers each request in a thread of its own, which has `_READ_WITHIN_S` for it."""

    def __init__(self, *args: Any) -> None:
        self._answering: dict[threading.Thread, tuple[socket.socket, float]] = {}
        """The threads that answer, each with its connection and the time of its end. For the
        thread that serves alone, and after its end for the one that closes."""
        super().__init__(*args)

    def server_bind(self) -> None:
        # The base asks DNS for the host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        self.service_actions()
        return len(self._answering) < _MOST_CLIENTS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        thread = threading.Thread(
            target=self._answer,
            args=(request, client_address),
            name="p2p-metrics-answer",
            daemon=True,
        )
        thread.start()
        self._answering[thread] = (request, time.monotonic() + _READ_WITHIN_S)

    def service_actions(self) -> None:
        """Ten times a second: hang up on clients whose time is over."""
        self._answering = {
            thread: answered for thread, answered in self._answering.items() if thread.is_alive()
        }
        self._hang_up_before(time.monotonic())

    def hang_up(self) -> None:
        """Get the requests back that wait for their clients, and their threads."""
        self._hang_up_before(math.inf)
        for thread in self._answering:
            thread.join()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - told as the base tells it
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)

    def _hang_up_before(self, now_s: float) -> None:
        for connection, until_s in self._answering.values():
            if until_s < now_s:
                with contextlib.suppress(OSError):  # it ended in this moment
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            return  # the client went away
        super().handle_error(request, client_address)


def _opened(host: str, port: int) -> _Server:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        kind = type("_Server", (_Server,), {"address_family": family})
        server: _Server = kind(address[:2], _Handler)
    except socket.gaierror:
        raise UserError(
            f"--metrics {host}:{port}: no such host", "a name or address of this machine", _MENDS
        ) from None
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "the port is in use",
            errno.EACCES: "the port is not allowed (below 1024 it needs root)",
            errno.EADDRNOTAVAIL: "no address of this machine",
        }.get(error.errno or 0, error.strerror or str(error))
        raise UserError(
            f"--metrics {host}:{port}: {reason}", "a port that is free", _MENDS
        ) from None
    return server
