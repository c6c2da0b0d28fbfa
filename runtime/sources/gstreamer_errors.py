"""Why a GStreamer pipeline failed, out of what gst-launch wrote, and what mends it."""

from __future__ import annotations

import re

from runtime.errors import SourceError
from runtime.uris import redacted_pipeline


def failure(name: str, what: str, errors: str) -> SourceError:
    """The error of a pipeline.

    Args:
        name: the source's, for people.
        what: what it did: `failed (exit code 1)`.
        errors: all that gst-launch wrote to its stderr.
    """
    told = _reason(errors)
    missing = re.search(r'no element "([^"]+)"', told)
    expected, mend = "a pipeline that gives video", "try it in gst-launch-1.0 first"
    if missing and missing[1].startswith("nv"):
        expected = f"GStreamer's element {missing[1]}, which comes with a Jetson"
        mend = "on a Jetson: sudo apt install nvidia-l4t-gstreamer; elsewhere: --source 0"
    elif missing:
        expected = f"GStreamer's element {missing[1]}"
        mend = (
            f"check the name with gst-inspect-1.0 {missing[1]}, or run: "
            "sudo apt install gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
            "gstreamer1.0-libav"
        )
    elif name.startswith("csi://"):
        expected, mend = (
            "a CSI camera that is connected and free",
            "check its cable, and run: sudo systemctl restart nvargus-daemon",
        )
    reason = f": {redacted_pipeline(told)}" if told else ""
    return SourceError(f"{name} {what}{reason}", expected, mend)


def _reason(errors: str) -> str:
    """The line by which gst-launch says why it failed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    for start in ("ERROR: from element ", "WARNING: erroneous pipeline: ", "ERROR: ", "ERROR"):
        for line in lines:
            if line.startswith(start):
                at, line_of_debug = lines.index(line), ""
                if start.endswith("element ") and "Internal data stream error" in line:
                    reasons = [text for text in lines[at:] if text.startswith("streaming stopped")]
                    line_of_debug = f" ({reasons[0]})" if reasons else ""
                return line.removeprefix(start).removeprefix("/GstPipeline:pipeline0/") + (
                    line_of_debug
                )
    return ""
