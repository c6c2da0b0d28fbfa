"""Motion JPEG over HTTP, as IP cameras and phones send it: each picture as soon as it is whole.

FFmpeg reads such a stream too. It waits for the boundary behind a picture whose length is not
told, and so shows it one interval late, and whatever piled up it shows in full.
"""

from __future__ import annotations

import http.client
import re
import selectors
import socket
import ssl
import string
import threading
import time
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin

import cv2
import numpy as np

from runtime.errors import SourceError
from runtime.frame import Image
from runtime.quiet import quiet_opencv
from runtime.sources.connection import authorization, connected, no_answer, refused_user
from runtime.uris import Address, address_of, redacted

READ_TIMEOUT_S = 2.0

_ANSWER_WITHIN_S = 3.0
_MOST_REDIRECTS = 5
_RECEIVE_BYTES = 1 << 16
_MOST_PICTURE_BYTES = 1 << 26
_MOST_HEADER_BYTES = 1 << 22
_CATCH_UP_WITHIN_S = 0.25

_START = b"\xff\xd8\xff"
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
# In a scan, FF is followed by 00, or by a restart mark; anything else ends it.
_PADDING = re.compile(rb"\xff+")
_MARK_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

# poll takes any descriptor, select only small ones; Windows has no poll.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


@dataclass
class HttpAnswer:
    """An answer whose body is yet to be read, and the connection that it comes by."""

    response: http.client.HTTPResponse
    connection: socket.socket
    content_type: str
    """In lower case, without parameters."""

    def close(self) -> None:
        """Let go of both."""
        self.response.close()
        self.connection.close()


def asked_over_http(address: Address) -> HttpAnswer:
    """GET an address, with Digest or Basic authentication where it is asked for.

    Raises:
        SourceError: no server, no answer within three seconds, or one that says no.
    """
    for _ in range(_MOST_REDIRECTS):
        # A request is of ASCII without spaces; what is quoted already stays.
        address = replace(address, target=quote(address.target, safe=string.punctuation))
        answer = _asked(address, None)
        if answer.response.status == 401:
            challenges = answer.response.headers.get_all("WWW-Authenticate") or []
            proof = authorization(challenges, "GET", address.target, address)
            if proof is not None:
                answer.close()
                answer = _asked(address, proof)
        status, reason = answer.response.status, answer.response.reason
        if status == 200:
            return answer
        answer.close()
        shown = redacted(address.without_user)
        if status in (401, 403):
            raise refused_user(address, shown)
        where = answer.response.headers.get("Location")
        if status not in (301, 302, 303, 307, 308) or where is None:
            raise SourceError(
                f"{shown}: the server answers {status} {reason}",
                "the address of a stream",
                "look the path up in the camera's manual or settings",
            )
        address = _redirected(address, where)
    raise SourceError(
        f"{redacted(address.without_user)} leads in a circle",
        "an address of a stream",
        "check the address",
    )


def _redirected(address: Address, where: str) -> Address:
    there = address_of(urljoin(address.without_user, where))
    if there is None or there.scheme not in ("http", "https"):
        raise SourceError(
            f"{redacted(address.without_user)} leads to {redacted(where)}",
            "an address that starts with http:// or https://",
            "name the stream itself",
        )
    # A password is for the server that it was written for, and does not leave TLS again.
    safe = there.scheme == "https" or address.scheme == "http"
    same = (there.host, there.port) == (address.host, address.port)
    return there.with_credentials_of(address) if safe and same else there


def _asked(address: Address, proof: str | None) -> HttpAnswer:
    tls = ssl.create_default_context() if address.scheme == "https" else None
    connection = connected(address, tls=tls)
    try:
        connection.settimeout(_ANSWER_WITHIN_S)
        request = http.client.HTTPConnection(address.host, address.port)
        request.sock = connection
        headers = {"Host": address.authority, "Connection": "close", "Accept": "*/*"}
        if proof is not None:
            headers["Authorization"] = proof
        request.request("GET", address.target, headers=headers)
        response = request.getresponse()
    except TimeoutError as error:
        connection.close()
        raise no_answer(address.authority, _ANSWER_WITHIN_S) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise SourceError(
            f"{address.authority} does not speak HTTP ({type(error).__name__})",
            "a web server or an IP camera",
            "check the port",
        ) from error
    kind = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    return HttpAnswer(response, connection, kind)


class MjpegStream:
    """The newest picture of a `multipart/x-mixed-replace` body.

    Pictures are found by JPEG's own marks: boundaries and lengths, which cameras get wrong in
    many ways, are passed over. Everything that has arrived is read at each turn, and only the
    newest whole picture is decoded.

    Args:
        answer: to read from; it is closed with the stream.
    """

    fps: float | None = None
    frame_count: int | None = None

    def __init__(self, answer: HttpAnswer) -> None:
        self.skipped = 0
        """Whole pictures that a newer one took the place of."""
        self.undecodable = 0
        self._answer = answer
        self._finder = JpegFinder()
        self._interrupted = threading.Event()
        self._ended = False

    @property
    def torn(self) -> int:
        """Pictures that were not whole, and not shown."""
        return self._finder.torn + self.undecodable

    def read(self) -> tuple[Image, int] | None:
        """The newest picture, and when it was there.

        Returns:
            uint8 [H, W, 3] BGR in memory of its own (OpenCV decodes into nothing else) and
            `time.perf_counter_ns`; None when none came within `READ_TIMEOUT_S`, at the end, or
            after `interrupt`.
        """
        until_s = time.monotonic() + READ_TIMEOUT_S
        while (data := self._newest(until_s)) is not None:
            came_ns = time.perf_counter_ns()
            with quiet_opencv():
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                return image, came_ns
            self.undecodable += 1
        return None

    def interrupt(self) -> None:
        """End the `read` that waits, at once."""
        self._interrupted.set()
        try:
            # Of the socket below TLS: the one above is in use by the reading thread.
            socket.socket.shutdown(self._answer.connection, socket.SHUT_RDWR)
        except OSError:
            self._ended = True  # the server was quicker, or `close`

    def close(self) -> None:
        """Let go of the connection."""
        self._interrupted.set()
        self._answer.close()

    def _newest(self, until_s: float) -> bytes | None:
        newest: bytes | None = None
        give_up_s = until_s
        while newest is None or (time.monotonic() < give_up_s and self._more_waits()):
            data = self._received(until_s)
            if not data:
                break
            for jpeg in self._finder.found_in(data):
                if newest is None:
                    give_up_s = time.monotonic() + _CATCH_UP_WITHIN_S
                else:
                    self.skipped += 1
                newest = jpeg
        return newest

    def _received(self, until_s: float) -> bytes:
        """What has come, at least a byte; nothing at the end, and when it is too late."""
        left_s = until_s - time.monotonic()
        if left_s <= 0 or self._ended or self._interrupted.is_set():
            return b""
        try:
            self._answer.connection.settimeout(left_s)
            data = self._answer.response.read1(_RECEIVE_BYTES)
        except (OSError, ValueError, http.client.HTTPException):  # late, reset, or cut off
            data = b""
        self._ended = not data
        return data

    def _more_waits(self) -> bool:
        connection = self._answer.connection
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        if connection.fileno() < 0:
            return False
        with _Selector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            return bool(selector.select(0))


class JpegFinder:
    """Cuts whole JPEG files out of a stream of bytes.

    Source: ITU-T T.81, annex B. A start of image within another one means that the first was
    torn; what comes next is looked at as if it were new.
    """

    def __init__(self) -> None:
        self.torn = 0
        self._data = bytearray()
        self._inside = False
        self._at = 0
        self._in_scan = False
        self._in_header = True
        """Before the first scan."""

    def found_in(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream.

        Returns:
            The files that became whole with them, in order.
        """
        self._data += data
        found: list[bytes] = []
        while self._start():
            end = self._end()
            if end is None:
                break
            if end > 0:
                found.append(bytes(memoryview(self._data)[:end]))
            else:
                self.torn += 1
                end = max(2, self._at)
            del self._data[:end]
            self._inside = False
        if len(self._data) > _MOST_PICTURE_BYTES:
            self.torn += 1
            self._data.clear()
            self._inside = False
        return found

    def _start(self) -> bool:
        """Bring the start of the next picture to the front of what is kept."""
        if not self._inside:
            at = self._data.find(_START)
            del self._data[: at if at >= 0 else max(0, len(self._data) - 2)]
            self._inside, self._at, self._in_scan = at >= 0, 2, False
            self._in_header = True
        return self._inside

    def _end(self) -> int | None:
        """Behind the end of the picture at the front; 0: it is torn; None: not here yet."""
        data = self._data
        while True:
            if self._in_scan:
                mark = _MARK_IN_SCAN.search(data, self._at)
                if mark is None:
                    self._at = max(self._at, len(data) - 1)
                    return None
                self._at, self._in_scan = mark.start(), False
            if self._in_header and self._at > _MOST_HEADER_BYTES:
                return 0
            if len(data) < self._at + 4 and data[self._at : self._at + 2] != b"\xff\xd9":
                return None
            if data[self._at] != 0xFF:
                return 0
            mark_byte = data[self._at + 1]
            if mark_byte == _END_OF_IMAGE:
                return self._at + 2
            if mark_byte == _START_OF_IMAGE:
                return 0
            if mark_byte == 0xFF:  # padding before a mark
                padding = _PADDING.match(data, self._at)
                assert padding is not None
                self._at = padding.end() - 1
            elif mark_byte in _WITHOUT_LENGTH:
                self._at += 2
            else:
                self._at += 2 + int.from_bytes(data[self._at + 2 : self._at + 4], "big")
                self._in_scan = mark_byte == _START_OF_SCAN
                self._in_header = self._in_header and not self._in_scan
