"""A router between a viewer and an RTSP server that fails the first streams."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

PLAYED = b"RTP-Info"


@contextmanager
def breaking_proxy(port, breaks, silently=False):
    """Pass connections on to `port` of this machine.

    Args:
        port: the server's.
        breaks: how many streams fail, as soon as the server has agreed to play them.
        silently: they stay open, and nothing comes any more; else they are cut off.

    Yields:
        A socket that listens, with `broken`, the number of streams that failed so far.
    """
    listener = _Listener(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, port, breaks, silently), daemon=True).start()
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


def _accept(listener, port, breaks, silently):
    while True:
        try:
            viewer, _ = listener.accept()
        except OSError:  # closed
            return
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=_pass_on, args=(viewer, server), daemon=True).start()
        back = (server, viewer, listener, breaks, silently)
        threading.Thread(target=_pass_back, args=back, daemon=True).start()


def _pass_on(viewer, server):
    try:
        while data := viewer.recv(1 << 16):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
    except OSError:  # one side has gone
        server.close()


def _pass_back(server, viewer, listener, breaks, silently):
    with server, viewer:
        try:
            while data := server.recv(1 << 16):
                if PLAYED in data and listener.broken < breaks:
                    listener.broken += 1
                    viewer.sendall(data[: data.index(b"\r\n\r\n") + 4])
                    while silently and server.recv(1 << 16):
                        pass
                    viewer.shutdown(socket.SHUT_RDWR)
                    return
                viewer.sendall(data)
        except OSError:  # the viewer has gone
            return
