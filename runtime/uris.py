"""Addresses of streams, and how to tell them without their passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

HIDDEN = "***"

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\S*)")
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?")
_SECRET = re.compile(
    r"(?<![A-Za-z])(pass(?:word|wd|phrase)?|pwd|psw|token|secret|api_?key|key|auth|sig(?:nature)?)"
    r"=[^&;\s#]+",
    re.IGNORECASE,
)

_OPTION = re.compile(
    r"\b(user(?:-?(?:id|name|pw))?|pass(?:word|wd)?|pw|pwd|token|secret|api-?key|proxy-pw)"
    r"(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s&!\"']+)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Hide the password of every address in `text`: `rtsp://user:***@host/path`.

    A password in a query or a path (`?pwd=...`, `/user=admin_password=...`) is hidden too, and
    one that has a '/' or '@' in it which should have been written as %2F or %40.
    """
    return _ADDRESS.sub(_redacted_address, text)


def redacted_pipeline(text: str) -> str:
    """As `redacted`, and of a GStreamer pipeline the options that hold names or passwords:
    `rtspsrc location=rtsp://host user-id=*** user-pw=***`."""
    return _OPTION.sub(rf"\1\2{HIDDEN}", redacted(text))


def without_secrets(text: str, uri: str) -> str:
    """`text`, which another program wrote about `uri`, with the password of `uri` hidden."""
    text = redacted(text.replace(uri, redacted(uri)))
    credentials, _ = _parts(uri.partition("://")[2])
    password = credentials.partition(":")[2]
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, HIDDEN)
    return text


@dataclass(frozen=True)
class Address:
    """The parts of a stream's address."""

    scheme: str
    """In lower case."""
    host: str
    port: int | None
    user: str
    """Decoded; empty for none."""
    password: str
    target: str
    """Path and query, at least `/`."""

    @property
    def authority(self) -> str:
        """Host and port as they are written, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def without_user(self) -> str:
        """The address as a request names it."""
        return f"{self.scheme}://{self.authority}{self.target}"

    def with_credentials_of(self, other: Address) -> Address:
        """The same place, for the user and password of another address."""
        return Address(self.scheme, self.host, self.port, other.user, other.password, self.target)


def address_of(uri: str) -> Address | None:
    """Take an address apart; None where it has no host, or a port that is no number."""
    scheme, separator, tail = uri.partition("://")
    credentials, rest = _parts(tail)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    match = _HOST_AND_PORT.fullmatch(authority)
    if not separator or match is None or not match[1]:
        return None
    port = int(match[2]) if match[2] else None
    if port is not None and port > 0xFFFF:
        return None
    user, _, password = credentials.partition(":")
    target = rest[len(authority) :].partition("#")[0]
    return Address(
        scheme.lower(),
        match[1].strip("[]"),
        port,
        unquote(user),
        unquote(password),
        target if target.startswith("/") else "/" + target,
    )


def _redacted_address(match: re.Match[str]) -> str:
    credentials, rest = _parts(match[2])
    user, colon, _ = credentials.partition(":")
    rest = _SECRET.sub(lambda secret: f"{secret[1]}={HIDDEN}", rest)
    if not credentials:
        return match[1] + rest
    return f"{match[1]}{user}{colon}{HIDDEN if colon else ''}@{rest}"


def _parts(tail: str) -> tuple[str, str]:
    """`user:password` (empty for none) and what follows the '@'."""
    authority = re.split(r"[/?#]", tail, maxsplit=1)[0]
    if "@" in authority:
        cut = authority.rindex("@")
    elif "@" in tail and ":" in authority and _HOST_AND_PORT.fullmatch(authority) is None:
        cut = tail.rindex("@")  # a password with an unescaped '/', '?' or '#'
    else:
        return "", tail
    return tail[:cut], tail[cut + 1 :]
