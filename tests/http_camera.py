"""A web server that gives Motion JPEG as cameras do, well and badly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2

from runtime.sources.synthetic import SyntheticSource

RATE = 30
STILL = object()
"""As a picture: send nothing for as long as the server runs."""


def jpegs(count: int, size_px: tuple[int, int] = (120, 208), first: int = 0) -> list[bytes]:
    """Numbered pictures as JPEG files."""
    source = SyntheticSource(size_px, frames=first + count)
    images = [source.read().image for _ in range(first + count)][first:]
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in images]


class HttpCamera:
    """Serves at `/camera`; each viewer gets the pictures of `give` from its first one.

    Args:
        give: makes the pictures; each is sent as soon as it comes.
        lengths: send Content-Length with each.
        challenge: `basic` or `digest`: let in `viewer` with `se cret` alone.
    """

    def __init__(
        self,
        give: Callable[[], Iterator[object]],
        lengths: bool = True,
        challenge: str = "",
        content_type: str = "multipart/x-mixed-replace; boundary=--edge",
    ) -> None:
        camera = self
        self.stop = threading.Event()
        self.proofs: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proof = self.headers.get("Authorization")
                camera.proofs.append(proof)
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", "/camera")
                    self.end_headers()
                    return
                if self.path != "/camera":
                    self.send_error(404)
                    return
                if challenge and not camera.lets_in(proof, challenge):
                    self.send_response(401)
                    asked = 'Basic realm="cam"'
                    if challenge == "digest":
                        asked = 'Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5'
                    self.send_header("WWW-Authenticate", asked)
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.end_headers()
                for jpeg in give():
                    if jpeg is STILL:
                        camera.stop.wait()
                    if camera.stop.is_set():
                        return
                    length = f"Content-Length: {len(jpeg)}\r\n" if lengths else ""
                    head = f"--edge\r\nContent-Type: image/jpeg\r\n{length}\r\n"
                    try:
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                    except OSError:
                        return  # the viewer has gone

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port = self._server.server_port
        self.uri = f"http://127.0.0.1:{self.port}/camera"

    @staticmethod
    def lets_in(proof: str | None, challenge: str) -> bool:
        """Check a proof as RFC 7617 and RFC 7616 say, by the standard library's own client."""
        from urllib.request import (
            AbstractDigestAuthHandler,
            HTTPPasswordMgr,
            Request,
            parse_http_list,
            parse_keqv_list,
        )

        if proof is None:
            return False
        if challenge == "basic":
            return proof == "Basic dmlld2VyOnNlIGNyZXQ="
        fields = parse_keqv_list(parse_http_list(proof.partition(" ")[2]))
        known = HTTPPasswordMgr()
        known.add_password("cam", "http://h/", "viewer", "se cret")
        handler = AbstractDigestAuthHandler(known)
        handler.get_cnonce = lambda _nonce: fields["cnonce"]
        asked = {"realm": "cam", "nonce": "abc", "qop": "auth", "algorithm": "MD5"}
        wanted = handler.get_authorization(Request("http://h/camera"), asked)
        expected = parse_keqv_list(parse_http_list(wanted))
        return all(fields[name] == expected[name] for name in ("username", "response", "uri"))

    def __enter__(self) -> HttpCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def by_the_clock(size_px: tuple[int, int] = (120, 208)) -> Iterator[bytes]:
    """Pictures that carry the tick of the clock (`time.monotonic`, 30 a second) at their sending;
    what the network does not take at once is old when it goes out, as with a real camera."""
    drawn = SyntheticSource(size_px, frames=1)
    tick = int(time.monotonic() * RATE)
    while True:
        tick += 1
        time.sleep(max(0.0, tick / RATE - time.monotonic()))
        yield cv2.imencode(".jpg", drawn._draw(tick % (1 << 24)))[1].tobytes()


@contextmanager
def raw_server(serve: Callable[[object], None]) -> Iterator[int]:
    """A TCP server that does with its first connection what `serve` says; its port."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)
