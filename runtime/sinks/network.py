"""A stream into the network: to a media server, or to another computer."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from runtime.errors import SinkError
from runtime.frame import Frame
from runtime.sinks.base import BaseSink
from runtime.sinks.child import FedProcess
from runtime.sinks.frame_rate import nearest_rate
from runtime.uris import Address, address_of, redacted, without_secrets

SCHEMES = ("rtsp", "rtsps", "udp")
DEFAULT_FPS = 25.0

_LOOK_WITHIN_S = 10.0
_REPEAT_AFTER_S = 0.4
"""Servers and viewers give up a stream that says nothing for seconds."""
_TS_PACKETS = 1316
"""Seven packets of a transport stream fill an Ethernet frame."""


class NetworkSink(BaseSink):
    """H.264 for a media server (`rtsp://`, `rtsps://`) or for one receiver (`udp://`, MPEG-TS).

    ffmpeg encodes and sends, or GStreamer where there is no ffmpeg; it starts with the first
    frame. ffmpeg keeps a constant rate by the clock: where frames are missing the last one is
    sent again, and a viewer never waits for them. While none comes at all, `wants_more` gives the
    last one again, twice a second and more. A frame of another size ends the stream and
    starts a new one: a viewer of `udp://` goes on, one of `rtsp://` connects again.

    The password of an address is never in a message; the list of this machine's
    processes shows it to other users, since ffmpeg takes it in no other way.

    Args:
        uri: `rtsp://[user:password@]host[:port]/path`, `rtsps://` likewise, or `udp://host:port`.
        fps: the stream's rate; None: 25.
        live: send each frame at once. Otherwise frames wait until it is their time, so that a
            file plays at its own speed.

    Raises:
        SinkError: no such address, or neither program is installed.
    """

    shows_notes = True

    def __init__(self, uri: str, fps: float | None = None, live: bool = True) -> None:
        shown = redacted(uri)
        address = address_of(uri)
        if (
            address is None
            or address.scheme not in SCHEMES
            or (address.scheme == "udp" and (address.port is None or not address.host))
        ):
            raise SinkError(
                f"{shown} is no address to send to",
                "rtsp://HOST:PORT/PATH, rtsps:// or udp://HOST:PORT",
                "write for example rtsp://localhost:8554/night",
            )
        self._uri = f"{address.scheme}://{uri.partition('://')[2]}"  # ffmpeg knows no RTSP://
        self._address = address
        self._fps = fps or DEFAULT_FPS
        self._paced = not live
        self._program, self._encoder = _encoder()
        self._child: FedProcess | None = None
        self._size_px = (0, 0)
        self._last = np.empty((0, 0, 3), np.uint8)
        self._given_s = 0.0
        self._due_s = 0.0
        self._closed = threading.Event()
        self.description = (
            f"{shown}, {self._encoder} by {Path(self._program).name}, {self._fps:.5g} fps"
        )

    def write(self, frame: Frame) -> None:
        """Give a frame to the encoder.

        Raises:
            SinkError: the encoder ended, or took no frame for two seconds (five at its start).
        """
        size_px = frame.image.shape[:2]
        if self._child is not None and size_px != self._size_px:
            child, self._child = self._child, None
            child.finish()
        if self._child is None:
            self._size_px = (size_px[0], size_px[1])
            self._child = FedProcess(self._command(), self._told)
        if self._last.shape != frame.image.shape:
            self._last = np.empty_like(frame.image, order="C")
        np.copyto(self._last, frame.image)
        if self._paced:
            self._wait_for_its_time()
        self._give(self._child)

    def wants_more(self) -> bool:
        """Always; gives the last picture again when none came for a while.

        Raises:
            SinkError: as `write`.
        """
        late = time.monotonic() - self._given_s > _REPEAT_AFTER_S
        if late and self._child is not None and not self._closed.is_set():
            self._give(self._child)
        return True

    def _give(self, child: FedProcess) -> None:
        try:
            child.write(self._last)
        except SinkError:
            if not self._closed.is_set():
                raise
        self._given_s = time.monotonic()

    def interrupt(self) -> None:
        """Wait for the encoder no more."""
        self._closed.set()
        child = self._child  # the writing thread may let go of it now
        if child is not None:
            child.kill()

    def close(self, keep: bool = True) -> None:
        """End the stream; the encoder has two seconds for it. Ends a wait in `write` too.

        Raises:
            SinkError: the encoder had failed, so that not all was sent; not with `keep=False`.
        """
        interrupted = self._closed.is_set()
        self._closed.set()
        child, self._child = self._child, None
        if child is not None:
            error = child.finish()
            if keep and error is not None and not interrupted:
                raise error

    def _wait_for_its_time(self) -> None:
        now_s = time.monotonic()
        self._closed.wait(max(0.0, self._due_s - now_s))
        self._due_s = max(self._due_s, now_s) + 1 / self._fps

    def _told(self, line: str) -> str:
        return without_secrets(line, self._uri)

    def _command(self) -> list[str]:
        height, width = self._size_px
        rate = nearest_rate(self._fps)
        rest = (self._encoder, (width, height), f"{rate.numerator}/{rate.denominator}")
        if Path(self._program).name == "ffmpeg":
            return [self._program, *_ffmpeg(self._uri, self._address, *rest)]
        return [self._program, *_gst_launch(self._address, *rest)]


def _ffmpeg(
    uri: str, address: Address, encoder: str, size: tuple[int, int], rate: str
) -> list[str]:
    width, height = size
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"] if width % 2 or height % 2 else []
    key_frames = ["-g", str(max(1, round(_number(rate))))]  # one a second: viewers join soon
    if encoder == "libx264":
        tuned = ["-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
    else:
        tuned = ["-q:v", "4", "-pix_fmt", "yuv420p"]
    if address.scheme in ("rtsp", "rtsps"):
        to = ["-f", "rtsp", "-rtsp_transport", "tcp", uri]
    else:
        joined = "&" if "?" in uri else "?"
        to = ["-flush_packets", "1", "-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts"]
        to.append(f"{uri}{joined}pkt_size={_TS_PACKETS}")
    return [
        "-nostdin", "-hide_banner", "-loglevel", "error",
        "-fflags", "nobuffer", "-use_wallclock_as_timestamps", "1",
        "-f", "rawvideo", "-pix_fmt", "bgr24", "-video_size", f"{width}x{height}",
        "-framerate", rate, "-i", "pipe:0",
        "-an", *even, "-r", rate, "-c:v", encoder, *tuned, *key_frames, *to,
    ]  # fmt: skip


def _gst_launch(address: Address, encoder: str, size: tuple[int, int], rate: str) -> list[str]:
    width, height = size
    even = f"video/x-raw,format={{form}},width={width + width % 2},height={height + height % 2}"
    every = max(1, round(_number(rate)))
    if encoder == "nvv4l2h264enc":
        encode = (
            f"videoconvert ! videoscale ! {even.format(form='BGRx')} ! nvvidconv "
            "! video/x-raw(memory:NVMM),format=NV12 "
            f"! nvv4l2h264enc insert-sps-pps=1 maxperf-enable=1 iframeinterval={every}"
        )
    else:
        encode = (
            f"videoconvert ! videoscale ! {even.format(form='I420')} "
            f"! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={every}"
        )
    # rtspclientsink stops after two frames that carry the time of their arrival: there they are
    # stamped by counting.
    stamped = "do-timestamp=true " if address.scheme == "udp" else ""
    text = (
        f"fdsrc fd=0 {stamped}blocksize={width * height * 3} "
        f"! rawvideoparse format=bgr width={width} height={height} framerate={rate} "
        f"! queue max-size-buffers=2 ! {encode} ! h264parse config-interval=-1 "
    )
    if address.scheme == "udp":
        to = ["!", "mpegtsmux", "alignment=7", "!", "udpsink"]
        to += [f"host={address.host}", f"port={address.port}", "sync=false"]
    else:
        to = ["!", "rtspclientsink", "protocols=tcp", f"location={address.without_user}"]
        if address.user:
            to += [f"user-id={address.user}", f"user-pw={address.password}"]
    return ["-q", *text.split(), *to]


def _number(rate: str) -> float:
    over, _, under = rate.partition("/")
    return int(over) / int(under)


@cache
def _encoder() -> tuple[str, str]:
    """The program that sends, and the name of its encoder.

    Raises:
        SinkError: none is installed.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is not None:
        listed = _said((ffmpeg, "-hide_banner", "-encoders"))
        for encoder in ("libx264", "mpeg4"):
            if f" {encoder} " in listed:
                return ffmpeg, encoder
    launch, inspect = shutil.which("gst-launch-1.0"), shutil.which("gst-inspect-1.0")
    if launch is not None and inspect is not None:
        for encoder in ("nvv4l2h264enc", "x264enc"):
            if _said((inspect, encoder)):
                return launch, encoder
    raise SinkError(
        "neither ffmpeg nor GStreamer with an H.264 encoder is installed",
        "one of them, to send a stream",
        "run: sudo apt install ffmpeg",
    )


def _said(command: Sequence[str]) -> str:
    """What a program writes to its standard output; empty where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=_LOOK_WITHIN_S, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
