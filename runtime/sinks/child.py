"""A program that is fed frames through a pipe, and that can neither hang us nor outlive us."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Sequence

from runtime.errors import SinkError
from runtime.frame import Image
from runtime.pipe_capacity import widen

WRITE_TIMEOUT_S = 2.0
"""A program that takes nothing for so long is taken for hung."""
_START_WITHIN_S = 5.0
_END_WITHIN_S = 2.0
_KEEP_OF_STDERR = 4096
_LAST_LINES = 6
_PREFIX = re.compile(r"^\[[^\]]*\]")
_TELLING = re.compile(r"fail|refused|denied|not found|no such|unable|could not", re.IGNORECASE)


class FedProcess:
    """A child process that reads frames as raw bytes from its standard input.

    It is in a session of its own: Ctrl-C in the terminal is for us, and it ends when its input
    does. If this process is killed, the pipe closes and it ends too.

    Args:
        command: program and arguments.
        told: brings what it wrote to stderr into a form that may be shown.

    Raises:
        SinkError: it does not start.
    """

    def __init__(self, command: Sequence[str], told: Callable[[str], str]) -> None:
        self._name = command[0]
        self._told = told
        self._stderr = b""
        self._started_s = time.monotonic()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SinkError(
                f"{self._name} does not start ({error.strerror})",
                "a program that this user may run",
                "install it again",
            ) from error
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._input = self._process.stdin.fileno()
        self._errors = self._process.stderr.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._errors, False)
        widen(self._input)

    def write(self, image: Image) -> None:
        """Give a picture to it, whole.

        Raises:
            SinkError: it ended, or took nothing for `WRITE_TIMEOUT_S` (five seconds while it
                starts).
        """
        self._drain_stderr()
        left = image.data.cast("B")
        until_s = max(time.monotonic() + WRITE_TIMEOUT_S, self._started_s + _START_WITHIN_S)
        poll = select.poll()
        poll.register(self._input, select.POLLOUT)
        while left:
            try:
                left = left[os.write(self._input, left) :]
            except BlockingIOError:
                self._drain_stderr()
                wait_s = until_s - time.monotonic()
                if wait_s <= 0:
                    raise SinkError(
                        f"{self._name} took no frame for {WRITE_TIMEOUT_S:g} s{self._why()}",
                        "a receiver that answers",
                        "check the address and the network",
                    ) from None
                poll.poll(1000 * min(wait_s, 0.2))
            except OSError as error:  # it closed its end
                raise self.ended() from error

    def kill(self) -> None:
        """End it at once; a `write` in another thread raises. `finish` is still to be called."""
        self._process.kill()

    def finish(self) -> SinkError | None:
        """End its input, and it: killed when it takes longer than two seconds.

        Returns:
            What went wrong with it; None when it ended as it should.
        """
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        hung = False
        try:
            self._process.stdin.close()
            hung = not self._ends_within(_END_WITHIN_S)
        finally:
            self._process.kill()  # nothing, where it has ended
            self._process.wait()
        self._drain_stderr()
        failed = self._process.returncode != 0
        error = self.ended() if failed and not hung else None
        self._process.stderr.close()
        if hung:
            return SinkError(
                f"{self._name} did not end, and was killed{self._why()}",
                "a receiver that answers",
                "check the address and the network",
            )
        return error

    def ended(self) -> SinkError:
        """The error of a child that ended by itself, with what it said."""
        self._ends_within(WRITE_TIMEOUT_S)
        self._drain_stderr()
        code = self._process.returncode
        how = "closed its input" if code is None else f"ended with code {code}"
        return SinkError(
            f"{self._name} {how}{self._why()}",
            "a receiver that takes the stream",
            "check the address, and whether the receiver runs",
        )

    def _ends_within(self, timeout_s: float) -> bool:
        """Wait for its end without leaving it alone with a full pipe of complaints."""
        until_s = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > until_s:
                return False
            self._drain_stderr()
            time.sleep(0.01)
        return True

    def _drain_stderr(self) -> None:
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return
        try:
            while data := os.read(self._errors, _KEEP_OF_STDERR):
                self._stderr = (self._stderr + data)[-_KEEP_OF_STDERR:]
        except BlockingIOError:
            return

    def _why(self) -> str:
        """The line of its last ones that says why: both programs end with one that does not."""
        lines = self._stderr.decode(errors="replace").split("\n")
        lines = [_PREFIX.sub("", line).strip() for line in lines if line.strip()]
        telling = [line for line in lines[-_LAST_LINES:] if _TELLING.search(line)]
        return f" ({self._told((telling or lines[-1:])[0])})" if lines else ""
