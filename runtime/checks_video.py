"""The doctor's checks of what frames come from and go to."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime import machine
from runtime.checking import ABSENT, MISSING, OK, Check

_CAMERA_S = 15

_DESCRIBE_OPENCV = """
import re, cv2
told = cv2.getBuildInformation()
def has(name):
    line = re.search(r"^\\s*" + name + r":\\s*(.+)$", told, re.MULTILINE)
    return line is not None and line[1].strip().split()[0] not in ("NO", "NONE")
gui = re.search(r"^\\s*GUI:\\s*(\\S+)", told, re.MULTILINE)
names = ("GStreamer", "FFMPEG")
window = "windows by " + gui[1] if gui and gui[1] != "NONE" else "no windows"
print(cv2.__version__ + ", " + ", ".join(
    ("with " if has(name) else "without ") + name.replace("MPEG", "mpeg") for name in names
) + ", " + window)
"""


def check_opencv() -> Check:
    """OpenCV, and what it was built with."""
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    installed = [name for name in names if machine.version_of(name)]
    if len(installed) > 1:
        return Check(
            "OpenCV",
            MISSING,
            " and ".join(installed) + " are both installed, and overwrite each other's files",
            f"pip uninstall -y {' '.join(installed)}, then pip install opencv-python",
        )
    works, told = machine.probe(_DESCRIBE_OPENCV)
    if not works:
        mend = "pip install opencv-python"
        if "libGL" in told or "libgthread" in told or "libglib" in told:
            mend = "sudo apt install libgl1 libglib2.0-0"
        return Check("OpenCV", MISSING, told, mend)
    return Check("OpenCV", OK, told)


def check_gstreamer() -> Check:
    """GStreamer's programs: CSI cameras and `gst://`, without an OpenCV that was built for it."""
    launch = machine.output_of("gst-launch-1.0", "--version").partition("\n")[0].strip()
    on_jetson = machine.jetson() is not None
    if not launch:
        return Check(
            "GStreamer",
            MISSING if on_jetson else ABSENT,
            "no gst-launch-1.0: no csi:// and no gst://",
            "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good",
        )
    version = launch.rpartition(" ")[2]
    if on_jetson and not machine.output_of("gst-inspect-1.0", "nvarguscamerasrc"):
        return Check(
            "GStreamer",
            MISSING,
            f"{version}, without nvarguscamerasrc: no csi://",
            "sudo apt install nvidia-l4t-gstreamer",
        )
    return Check("GStreamer", OK, version)


def check_ffmpeg() -> Check:
    """The program that sends `rtsp://` and `udp://`."""
    told = machine.output_of("ffmpeg", "-version").partition("\n")[0]
    if version := re.match(r"ffmpeg version (\S+)", told):
        return Check("ffmpeg", OK, version[1])
    return Check(
        "ffmpeg",
        ABSENT,
        "no rtsp:// and no udp:// sink but by GStreamer",
        "sudo apt install ffmpeg",
    )


def check_extras() -> list[Check]:
    """Packages that one kind of source or sink needs."""
    extras = (
        ("mss", "screen", "screen://"),
        ("pyvirtualcam", "virtual", "virtual://"),
        ("prometheus-client", "metrics", "--metrics"),
    )
    return [
        Check(name, OK, version)
        if (version := machine.version_of(name))
        else Check(name, ABSENT, f"no {what}", f"pip install 'pix2pix-edge[{extra}]'")
        for name, extra, what in extras
    ]


def check_screen() -> Check:
    """Whether a window can open."""
    if sys.platform in ("win32", "darwin"):
        return Check("screen", OK, "a desktop")
    for variable in ("WAYLAND_DISPLAY", "DISPLAY"):
        if value := os.environ.get(variable):
            return Check("screen", OK, f"{variable}={value}")
    return Check("screen", ABSENT, "no desktop session", "write to a file: --sink out.mp4")


def check_cameras() -> list[Check]:
    """Each camera: opened, and one frame read."""
    nodes = sorted(
        Path("/dev").glob("video[0-9]*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0)
    )
    if not nodes:
        return [
            Check(
                "camera",
                ABSENT,
                "no /dev/video*",
                "connect one, or try a file: --source clip.mp4",
            )
        ]
    with ThreadPoolExecutor(4) as workers:
        return list(workers.map(_check_camera, nodes))


def _check_camera(node: Path) -> Check:
    model = machine.read_text(f"/sys/class/video4linux/{node.name}/name")
    told_model = f"{model}: " if model else ""
    if machine.read_text(f"/sys/class/video4linux/{node.name}/index") not in ("", "0"):
        return Check(str(node), ABSENT, f"{told_model}a second node of a camera, without pictures")
    if not os.access(node, os.R_OK | os.W_OK):
        return Check(
            str(node),
            MISSING,
            f"{told_model}may not be opened by this user",
            "sudo usermod -aG video $USER, and log in again",
        )
    works, told = machine.probe(
        "from runtime.sources import open_source\n"
        f"s = open_source({str(node)!r}); print(s.description); s.close()",
        _CAMERA_S,
    )
    if works:
        return Check(str(node), OK, told_model + told)
    mend = "close the program that uses it, or try another USB port"
    return Check(str(node), MISSING, told_model + told, mend)
