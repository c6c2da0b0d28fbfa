"""What tests of network streams share: a real RTSP server, and the age of a picture."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from http_camera import RATE

from runtime.errors import SourceError
from runtime.sources.network import NetworkSource
from runtime.sources.synthetic import index_in

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
NEEDED = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); "
    "from gi.repository import GstRtspServer"
)


def has_rtsp_server():
    if not Path(SYSTEM_PYTHON).exists():
        return False
    tried = subprocess.run([SYSTEM_PYTHON, "-c", NEEDED], capture_output=True, check=False)
    return tried.returncode == 0


needs_rtsp_server = pytest.mark.skipif(
    not has_rtsp_server(),
    reason="no GstRtspServer: apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly",
)


@contextmanager
def rtsp_server(*options):
    server = subprocess.Popen(
        [SYSTEM_PYTHON, str(SERVER), *map(str, options)], stdout=subprocess.PIPE, text=True
    )
    try:
        server.port = int(server.stdout.readline().split()[1])
        server.uri = f"rtsp://127.0.0.1:{server.port}/camera"
        yield server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@contextmanager
def opened(uri, **asked):
    source = NetworkSource(uri, **asked)
    try:
        yield source
    finally:
        source.close()


def age_s(frame):
    """How long ago a picture was drawn that carries the tick of this machine's clock."""
    tick = frame.captured_at_ns / 1e9 * RATE
    return (tick - index_in(frame.image)) % (1 << 24) / RATE


def why(uri):
    with pytest.raises(SourceError) as caught:
        NetworkSource(uri)
    return str(caught.value)
