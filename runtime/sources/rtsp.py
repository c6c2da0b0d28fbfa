"""Why an RTSP stream does not open: asked of the server itself, since FFmpeg does not say."""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass

from runtime.errors import SourceError
from runtime.sources.connection import authorization, connected, no_answer, refused_user
from runtime.uris import Address

_ANSWER_WITHIN_S = 2.0
_MOST_BYTES = 1 << 18
_CODEC = re.compile(r"^a=rtpmap:\d+ ([^/\s]+)", re.MULTILINE)


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    challenges: tuple[str, ...]
    body: str


def why_refused(address: Address, shown: str) -> SourceError:
    """Ask the server for the stream's description, as a player does first.

    It takes no longer than about four seconds. Like FFmpeg, it asks no certificate of an
    `rtsps://` server: cameras sign their own.

    Args:
        address: of the stream.
        shown: the address as it may be told, without the password.

    Returns:
        The error to raise: what the server said, or what there is that FFmpeg could not read.
    """
    try:
        answer = _described(address)
    except SourceError as error:
        return error
    except TimeoutError:
        return no_answer(address.authority, _ANSWER_WITHIN_S)
    except (OSError, ValueError) as error:
        return SourceError(
            f"{address.authority} does not speak RTSP ({error})",
            "an RTSP server",
            "check the port",
        )
    if answer.status in (401, 403):
        return refused_user(address, shown)
    if answer.status == 404:
        return SourceError(
            f"{shown}: the server has no such stream",
            "the path of one of its streams",
            "look the path up in the camera's manual or settings",
        )
    if answer.status != 200:
        return SourceError(
            f"{shown}: the server answers {answer.status} {answer.reason}",
            "a server that gives the stream",
            "look at the server's own log",
        )
    return _no_picture(answer.body, shown)


def _no_picture(description: str, shown: str) -> SourceError:
    """The server is ready, and still FFmpeg had no picture: tell it by the codecs."""
    # RFC 4566: a media description starts at m= and ends at the next one.
    media = re.split(r"^m=", description, flags=re.MULTILINE)[1:]
    videos = [part for part in media if part.startswith("video")]
    if not videos:
        return SourceError(
            f"{shown} has no video", "a stream with video", "look up the path of the video"
        )
    match = _CODEC.search(videos[0])
    codec = match[1] if match else "a codec without a name"
    return SourceError(
        f"{shown}: no picture came that FFmpeg can decode (the server sends {codec})",
        "H.264, H.265 or MJPEG, and a picture within five seconds",
        "choose another codec, or more key frames, in the camera's settings",
    )


def _described(address: Address) -> _Answer:
    """The answer to DESCRIBE, after authentication where it is asked for."""
    tls = None
    if address.scheme == "rtsps":
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    target = address.without_user
    with connected(address, _ANSWER_WITHIN_S, tls) as connection:
        answer = _asked(connection, target, 1, None)
        if answer.status == 401:
            proof = authorization(answer.challenges, "DESCRIBE", target, address)
            if proof is not None:
                answer = _asked(connection, target, 2, proof)
    return answer


def _asked(connection: socket.socket, target: str, number: int, proof: str | None) -> _Answer:
    lines = [f"DESCRIBE {target} RTSP/1.0", f"CSeq: {number}", "Accept: application/sdp"]
    if proof is not None:
        lines.append(f"Authorization: {proof}")
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    until_s = time.monotonic() + _ANSWER_WITHIN_S
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection, until_s, len(data))
    head, _, body = data.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    version, status, *reason = first.split(" ", 2)
    if not version.startswith("RTSP/") or not status.isdecimal():
        raise ValueError("it answered " + repr(first[:40]))
    values = [(name.strip().lower(), value.strip()) for name, _, value in map(_halves, fields)]
    length = next((int(value) for name, value in values if name == "content-length"), 0)
    while len(body) < length:
        body += _received(connection, until_s, len(body))
    challenges = tuple(value for name, value in values if name == "www-authenticate")
    return _Answer(int(status), " ".join(reason), challenges, body.decode("utf-8", "replace"))


def _halves(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def _received(connection: socket.socket, until_s: float, so_far: int) -> bytes:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    connection.settimeout(left_s)
    data = connection.recv(1 << 16)
    if not data:
        raise ValueError("it closed the connection")
    if so_far > _MOST_BYTES:
        raise ValueError("its answer has no end")
    return data
