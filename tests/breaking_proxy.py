"""A router between a viewer and an RTSP server that breaks the first connections."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

PLAYED = b"RTP-Info"


@contextmanager
def breaking_proxy(port, breaks):
    """Pass connections on to `port` of this machine.

    Yields:
        A socket that listens, with `broken`, the number of streams cut off so far: each of the
        first `breaks` is, as soon as the server has agreed to play it.
    """
    listener = _Listener(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, port, breaks), daemon=True).start()
    try:
        yield listener
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class _Listener(socket.socket):
    broken = 0

    @property
    def port(self):
        return self.getsockname()[1]


def _accept(listener, port, breaks):
    while True:
        try:
            viewer, _ = listener.accept()
        except OSError:  # closed
            return
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=_pass_on, args=(viewer, server), daemon=True).start()
        back = (server, viewer, listener, breaks)
        threading.Thread(target=_pass_back, args=back, daemon=True).start()


def _pass_on(viewer, server):
    try:
        while data := viewer.recv(1 << 16):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
    except OSError:  # one side has gone
        server.close()


def _pass_back(server, viewer, listener, breaks):
    with server, viewer:
        try:
            while data := server.recv(1 << 16):
                if PLAYED in data and listener.broken < breaks:
                    listener.broken += 1
                    viewer.sendall(data[: data.index(b"\r\n\r\n") + 4])
                    viewer.shutdown(socket.SHUT_RDWR)
                    return
                viewer.sendall(data)
        except OSError:  # the viewer has gone
            return
