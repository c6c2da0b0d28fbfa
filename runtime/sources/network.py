"""A stream from the network: an IP camera, a media server, another computer."""

from __future__ import annotations

import itertools
import time
from typing import Protocol

from runtime.errors import SourceError
from runtime.frame import Frame, Image
from runtime.sources.base import told_fps
from runtime.sources.connection import connected
from runtime.sources.ffmpeg_stream import OPEN_TIMEOUT_S, READ_TIMEOUT_S, FfmpegStream
from runtime.sources.mjpeg import MjpegStream, asked_over_http
from runtime.sources.rtsp import why_refused
from runtime.uris import Address, address_of, redacted

SCHEMES = ("rtsp", "rtsps", "http", "https", "udp")
"""`udp://@:5000` listens for what `--sink udp://HOST:5000` sends, an MPEG transport stream."""

_FIRST_IS_NEW_FOR_NS = 100_000_000
_FAILED_READS = 20
_BETWEEN_READS_S = 0.05


class _Stream(Protocol):
    fps: float | None
    frame_count: int | None
    skipped: int

    def read(self) -> tuple[Image, int] | None:
        """The newest picture and `time.perf_counter_ns` of it; None at the end."""

    def interrupt(self) -> None:
        """Let no `read` wait."""

    def close(self) -> None:
        """Let go of the connection."""


class NetworkSource:
    """The newest picture of a network stream.

    Read it continuously, in a thread of its own. Then a picture is as old as the camera's
    encoder and the network make it, and one interval more for H.264 (FFmpeg knows a picture to
    be whole when the next one begins). What piles up while nobody reads, in the buffers of the
    server and of this system's TCP, is passed over at the next read: it is decoded, for RTSP at
    the decoder's full speed and for no longer than a second at a time, but not given out. So
    after a pause of any length a `read` gives a picture that is at most about a tenth of a second
    behind, as long as the decoder is faster than the stream. Streams without time stamps are the
    exception: theirs are shown one after the other.

    RTSP comes over TCP. Motion JPEG over HTTP is read by our own code (`runtime.sources.mjpeg`),
    everything else by OpenCV's FFmpeg. A video file on a web server is not live: each of its
    frames is given.

    Args:
        uri: `rtsp://`, `rtsps://`, `http://`, `https://` or `udp://`, with `user:password@`
            where the server asks for it.
        size_px: (height, width) that was asked for. A server sends what it sends: another size
            is told in `warning`.
        fps: the rate, where the stream does not tell it.

    Raises:
        SourceError: why it does not open, never with the password. It takes at most two seconds
            to find nobody there, five until FFmpeg gives up, eighteen where a server agrees to
            play and sends nothing, and four more to ask why, if this system knows the host's
            address at once.
    """

    def __init__(
        self, uri: str, size_px: tuple[int, int] | None = None, fps: float | None = None
    ) -> None:
        self._name = redacted(uri)
        address = address_of(uri)
        no_port = address is not None and address.scheme == "udp" and address.port is None
        if address is None or address.scheme not in SCHEMES or no_port:
            raise SourceError(
                f"{self._name} is no address of a stream",
                " or ".join(f"{scheme}://" for scheme in SCHEMES) + " and a host, udp:// a port",
                "write for example rtsp://USER:PASSWORD@192.168.1.20:554/stream1",
            )
        self._interrupted = False
        self._stream, first = _begun(uri, address, self._name)
        self._first_picture: tuple[Image, int] | None = first
        self._next_index = 0
        self.frame_count = self._stream.frame_count
        self.live = self.frame_count is None
        height, width = first[0].shape[:2]
        self.size_px: tuple[int, int] | None = (height, width)
        self.fps: float | None = self._stream.fps or fps
        self.description = f"{self._name}, {width}x{height}, {told_fps(self.fps)}"
        self._notes: list[str] = []
        if size_px is not None and size_px != self.size_px:
            self._notes.append(
                f"{self._name} comes as {width}x{height}: the server chooses the size, "
                f"{size_px[1]}x{size_px[0]} cannot be asked of it"
            )

    @property
    def warning(self) -> str:
        """Another size than was asked for, pictures that were torn, a file that broke off."""
        torn = [f"{self.torn} torn pictures of {self._name} were left out"] if self.torn else []
        return "; ".join(self._notes + torn)

    @property
    def torn(self) -> int:
        """Pictures that did not arrive whole, and were not shown."""
        return self._stream.torn if isinstance(self._stream, MjpegStream) else 0

    @property
    def skipped(self) -> int:
        """Pictures that were passed over since newer ones were there."""
        return self._stream.skipped

    def read(self) -> Frame | None:
        """Wait for the next picture, for at most two seconds.

        Returns:
            None after `interrupt`, and at the end of a file.

        Raises:
            SourceError: none came, or the server ended the stream.
        """
        started_ns = time.perf_counter_ns()
        picture, self._first_picture = self._first_picture, None
        if picture is not None and not self.live:
            picture = (picture[0], started_ns)  # waiting to be asked for is no age of a file
        elif picture is not None and started_ns - picture[1] > _FIRST_IS_NEW_FOR_NS:
            picture = None
        if picture is None and not self._interrupted:
            picture = self._stream.read()
        if self._interrupted:
            return None
        if picture is None:
            if self.live:
                raise self._broke((time.perf_counter_ns() - started_ns) / 1e9)
            self._note_missing()
            return None
        image, came_ns = picture
        capture_ms = max(0.0, (came_ns - started_ns) / 1e6)
        frame = Frame(image, self._next_index, came_ns, capture_ms)
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """Motion JPEG: a `read` that waits comes back at once; others within two seconds."""
        self._interrupted = True
        self._stream.interrupt()

    def close(self) -> None:
        """End the connection."""
        self._interrupted = True
        self._stream.close()

    def _broke(self, waited_s: float) -> SourceError:
        if waited_s > 0.9 * READ_TIMEOUT_S:
            what = f"{self._name} gave no picture for {waited_s:.1f} s"
        else:
            what = f"{self._name} ended after {self._next_index} pictures"
        return SourceError(
            what, "a server that goes on sending", "check the camera and the network"
        )

    def _note_missing(self) -> None:
        if self.frame_count is not None and self._next_index < self.frame_count:
            self._notes.append(
                f"{self._name} claims {self.frame_count} frames, but only {self._next_index} came"
            )


def _begun(uri: str, address: Address, shown: str) -> tuple[_Stream, tuple[Image, int]]:
    """The stream of an address and its first picture.

    An RTSP server that agreed to play, and then sent nothing or broke off, is asked once more, and
    again for as long as `OPEN_TIMEOUT_S`: busy ones do that, and FFmpeg does not recover from it.
    """
    asked_anew = address.scheme in ("rtsp", "rtsps")
    started_s = time.monotonic()
    for asked in itertools.count(1):
        opening_s = time.monotonic()
        stream = _opened(uri, address, shown)
        until_s = time.monotonic() + OPEN_TIMEOUT_S
        if asked_anew:  # the sooner where it was silent all through the open
            until_s = opening_s + OPEN_TIMEOUT_S + READ_TIMEOUT_S
        try:
            picture = _first(stream, until_s)
        except BaseException:
            stream.close()
            raise
        if picture is not None:
            return stream, picture
        stream.close()
        if not asked_anew:
            raise SourceError(
                f"{shown} gives no picture",
                "a stream of pictures",
                "look whether a browser or a player shows it",
            )
        if asked > 1 and time.monotonic() - started_s > OPEN_TIMEOUT_S:
            break
    raise why_refused(address, shown)


def _first(stream: _Stream, until_s: float) -> tuple[Image, int] | None:
    """The first picture; one that can be decoded may be a few seconds behind the start."""
    failed = 0
    while (picture := stream.read()) is None:
        if isinstance(stream, MjpegStream) or time.monotonic() > until_s:
            break
        # One that has ended fails at once, each time; one that begins may fail a few times.
        failed += 1
        if failed == _FAILED_READS:
            break
        time.sleep(_BETWEEN_READS_S)
    return picture


def _opened(uri: str, address: Address, shown: str) -> _Stream:
    """The stream of an address, by the reader that is best for it."""
    if address.scheme in ("http", "https"):
        answer = asked_over_http(address)
        if answer.content_type.startswith("multipart/"):
            return MjpegStream(answer)
        answer.close()
        stream = FfmpegStream(uri)
        if not stream.opened:
            stream.close()
            raise SourceError(
                f"{shown} is no video that FFmpeg can read "
                f"(the server calls it {answer.content_type or 'nothing'})",
                "Motion JPEG, or a video",
                "name the stream itself, not the page that shows it",
            )
        return stream
    if address.scheme == "udp":
        if not address.host:  # FFmpeg would listen by IP version 6 alone on some systems
            query = address.target.lstrip("/")
            uri = f"udp://0.0.0.0:{address.port}{query}"
        stream = FfmpegStream(uri)
        if not stream.opened:
            stream.close()
            raise SourceError(
                f"nothing that FFmpeg can read came to {shown}",
                "an MPEG transport stream",
                "start the sender, or let the port through the firewall",
            )
        return stream
    connected(address).close()  # tells at once who is not there
    stream = FfmpegStream(uri)
    if not stream.opened:
        stream.close()
        raise why_refused(address, shown)
    return stream
