"""Whether there is a screen: asked of real display sockets."""

import socket

import pytest

from runtime.errors import SinkError
from runtime.sinks import screen


def test_a_screen_that_does_not_answer_is_one_line(monkeypatch):
    """A socket that takes the connection and says nothing, as a display behind a dead tunnel."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        display = f"127.0.0.1:{port - 6000}"
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
        monkeypatch.setattr(screen, "_MOST_S", 4.0)
        with pytest.raises(SinkError, match=rf"{display} did not answer within 4 s.*--sink"):
            screen.check_screen()
