"""Make the README's picture from the demo's side-by-side video: days above, nights below.

python tools/demo_picture.py runs/demo/translated.mp4 docs/demo.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

COLUMNS = 4
GAP_PX = 4


def main(video: Path, picture: Path) -> None:
    """Write evenly spaced frames of `video` to `picture`."""
    reader = cv2.VideoCapture(str(video))
    count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
    columns = []
    for position in np.linspace(0, count - 1, COLUMNS, dtype=int):
        reader.set(cv2.CAP_PROP_POS_FRAMES, int(position))
        came, frame = reader.read()
        if not came:
            sys.exit(f"error: {video} has no frame {position}; make it again with: make demo")
        middle = frame.shape[1] // 2
        gap = np.full((GAP_PX, middle, 3), 255, np.uint8)
        column = np.vstack([frame[:, :middle], gap, frame[:, middle:]])
        columns += [column, np.full((column.shape[0], GAP_PX, 3), 255, np.uint8)]
    picture.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(picture), np.hstack(columns[:-1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
