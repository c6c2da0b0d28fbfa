"""What the trainer's commands share: one line for an error, a stop that saves, a device."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError, TrainerError

if TYPE_CHECKING:
    import torch


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what the user can mend into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (TrainerError, OSError) as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2)

    return wrapped


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets the event, so that a step is finished; a second one interrupts."""
    stop = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def device_named(name: str) -> torch.device:
    """The device of `--device`; `auto` is the first GPU, or the CPU.

    Raises:
        ConfigError: this torch knows no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name}",
            "cpu" + (", cuda" if torch.cuda.is_available() else " (this torch sees no GPU)"),
            "leave --device out, or install a torch built for your GPU",
        ) from error
    return device
