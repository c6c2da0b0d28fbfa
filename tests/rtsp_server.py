"""An RTSP camera for the tests, run by the system's Python, which has GStreamer's server.

    /usr/bin/python3 tests/rtsp_server.py --port 0 --codec h264 --user viewer --password secret

It prints `port N` when it listens. Every picture carries the tick of the machine's monotonic
clock at which it was drawn (`tick = now * fps`), in the cells that
`runtime.sources.synthetic.index_in` reads: whoever receives it on the same machine knows its age
without asking. `--record` takes a published stream instead, on the same path, and prints
`recorded WxH ...` with the cells of each picture that comes.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from itertools import pairwise

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

CODE_BITS = 24
CELLS = CODE_BITS + 2
ROLE = "viewer"

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} bitrate=2000 "
    "! video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 pt=96 config-interval=1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
    "sound": "fakesink audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8",
}


def tell(line: str) -> None:
    """Write a line for the test that started this server."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def picture(tick: int, width: int, height: int) -> bytes:
    """GRAY8 [height, width]: a bar that moves, below the cells of `tick`."""
    edges = [width * cell // CELLS for cell in range(CELLS + 1)]
    bits = [1, 0] + [tick >> bit & 1 for bit in reversed(range(CODE_BITS))]
    code = b"".join(
        (b"\xff" if bit else b"\x00") * (right - left)
        for bit, (left, right) in zip(bits, pairwise(edges), strict=True)
    )
    at = 4 * tick % width
    row = bytearray(b"\x60" * width)
    row[at : at + 8] = b"\xc0" * len(row[at : at + 8])
    code_rows = max(2, height // 12)
    return code * code_rows + bytes(row) * (height - code_rows)


def feed(_factory: object, media: GstRtspServer.RTSPMedia, asked: argparse.Namespace) -> None:
    """Push a picture a tick to whatever pipeline the first viewer made the server build."""
    source = media.get_element().get_by_name("camera")
    if source is None:
        return
    gone = threading.Event()
    media.connect("unprepared", lambda _media: gone.set())

    def push() -> None:
        tick = int(time.monotonic() * asked.fps)
        while not gone.is_set():
            tick += 1
            time.sleep(max(0.0, tick / asked.fps - time.monotonic()))
            data = picture(tick, asked.width, asked.height)
            source.emit("push-buffer", Gst.Buffer.new_wrapped(data))

    threading.Thread(target=push, daemon=True).start()


def tell_recorded(_factory: object, media: GstRtspServer.RTSPMedia) -> None:
    """Print what comes in: its size and its cells."""

    def came(sink: Gst.Element) -> Gst.FlowReturn:
        sample = sink.emit("pull-sample")
        form = sample.get_caps().get_structure(0)
        width, height = form.get_value("width"), form.get_value("height")
        buffer = sample.get_buffer()
        row = buffer.extract_dup(width * (height // 24), width)
        edges = [width * cell // CELLS for cell in range(CELLS + 1)]
        white, black, *cells = (row[(a + b) // 2] for a, b in pairwise(edges))
        index = 0
        for cell in cells:
            index = index * 2 + int(abs(cell - white) < abs(cell - black))
        tell(f"recorded {width}x{height} {index}")
        return Gst.FlowReturn.OK

    media.get_element().get_by_name("seen").connect("new-sample", came)


def authentication(asked: argparse.Namespace) -> GstRtspServer.RTSPAuth:
    """Let in who knows the password, by the method that was asked for."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", ROLE)
    if asked.auth == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(asked.user, asked.password, token)
    else:
        basic = GstRtspServer.RTSPAuth.make_basic(asked.user, asked.password)
        auth.add_basic(basic, token)
    return auth


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--gop", type=int, default=15)
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    Gst.init(None)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(asked.port))
    factory = GstRtspServer.RTSPMediaFactory()
    if asked.record:
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        factory.set_launch(
            "( rtph264depay name=depay0 ! decodebin ! videoconvert ! video/x-raw,format=GRAY8 "
            "! appsink name=seen emit-signals=true sync=false )"
        )
        factory.connect("media-constructed", tell_recorded)
    else:
        form = f"format=GRAY8,width={asked.width},height={asked.height},framerate={asked.fps}/1"
        factory.set_launch(
            "( appsrc name=camera is-live=true do-timestamp=true format=time max-buffers=2 "
            f"leaky-type=downstream caps=video/x-raw,{form} ! videoconvert "
            f"! video/x-raw,format=I420 ! {ENCODERS[asked.codec].format(gop=asked.gop)} )"
        )
        factory.connect("media-configure", feed, asked)
        factory.set_shared(True)
    if asked.user:
        permissions = GstRtspServer.RTSPPermissions()
        for right in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role(ROLE, right, True)
        factory.set_permissions(permissions)
        server.set_auth(authentication(asked))
    server.get_mount_points().add_factory("/camera", factory)
    if not server.attach(None):
        sys.exit(f"port {asked.port} is taken")
    tell(f"port {server.get_bound_port()}")
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
