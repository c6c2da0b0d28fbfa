"""How much a pipe holds."""

from __future__ import annotations

import contextlib
import sys

_MOST_BYTES = 1 << 20
"""What Linux lets any user have (`/proc/sys/fs/pipe-max-size`): a frame passes in few pieces."""


def widen(descriptor: int) -> None:
    """Let a pipe hold as much as any user may have; what is no pipe stays as it is."""
    if sys.platform != "linux":
        return
    import fcntl

    set_pipe_size = getattr(fcntl, "F_SETPIPE_SZ", 1031)  # named in Python from 3.10 on
    with contextlib.suppress(OSError):  # no pipe, or this user has too many large ones
        fcntl.fcntl(descriptor, set_pipe_size, _MOST_BYTES)
