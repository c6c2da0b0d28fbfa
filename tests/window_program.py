"""A program with a window: shows frames at 25 fps until its window is closed.

The original is blue and the translation green, with a bar of 10 rows at the bottom as bright as
the frame's number. While a file `stall` lies in the working folder no frame comes. A file `out`
says at the end how many frames there were.
"""

import sys
import time
from pathlib import Path

import numpy as np

from runtime.frame import Translated
from runtime.sinks import open_sink
from runtime.view import View


def mark(image, frame):
    image[:20, :20] = (0, 0, 255)


def main(size_px):
    overlays = [mark] if "overlay" in sys.argv else []
    sink = open_sink("display://0", fps=25, live=True, view=View(overlays=overlays))
    if sink.notice:
        sys.stderr.write(f"{sink.notice}\n")
    index = 0
    while sink.wants_more():
        time.sleep(0.04)
        if Path("stall").exists():
            continue
        original = np.full((*size_px, 3), (200, 0, 0), np.uint8)
        translated = np.full((*size_px, 3), (0, 200, 0), np.uint8)
        for image in (original, translated):
            image[-10:] = index % 256
        sink.write(Translated(translated, index, translated=translated, original=original))
        index += 1
    sink.close()
    Path("out").write_text(str(index))


if __name__ == "__main__":
    main((int(sys.argv[1]), int(sys.argv[2])))
