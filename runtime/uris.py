"""Addresses of streams, and how to tell them without their passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

HIDDEN = "***"

# One '/' too, which is a slip. A password may have a space in it, but then no '/' as well.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:/{1,2})([^\s:/@]*:[^/\n]*@\S*|\S*)")
_BARE = re.compile(r"([\w.%+-]*):(?!\\)[^@/\s]+@")
"""`user:password@` without a scheme; `C:\\` is a disk."""
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?")
_SECRET = re.compile(
    r"((?:[\w.-]*(?:pas|pwd|psw|key|token|secret|auth|sess|sig|cred|jwt)[\w.-]*|\b(?:p|pw|sid))"
    r"(?:=|%3d))[^&;\s#]+",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"\b(user(?:-?(?:id|name|pw))?|pw|key|proxy-(?:id|pw)|cookies|extra-headers"
    r"|[\w-]*(?:pas|pwd|psw|token|secret|api-?key|auth|sess|cred|jwt)[\w-]*)"
    r"(\s*=\s*)(\"(?:\\.|[^\"\\])*\"|'[^']*'|(?:\\.|[^\s\"'])+)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Hide the password of every address in `text`: `rtsp://user:***@host/path`.

    A password in a query or a path (`?pwd=...`, `/user=admin_password=...`) is hidden too, and
    one that has a '/' or '@' in it which should have been written as %2F or %40.
    """
    return _BARE.sub(rf"\1:{HIDDEN}@", _ADDRESS.sub(_redacted_address, text))


def redacted_pipeline(text: str) -> str:
    """As `redacted`, and of a GStreamer pipeline the options that hold names or passwords:
    `rtspsrc location=rtsp://host user-id=*** user-pw=***`."""
    return _OPTION.sub(rf"\1\2{HIDDEN}", redacted(text))


def has_slipped(name: str) -> bool:
    """Whether a name that has no `://` was meant to be an address: `rtsp:/host`, `me:pw@host`.

    `C:/clip.mp4` was not.
    """
    return re.match(r"[A-Za-z]\w+:/(?!/)|[\w.%+-]+:(?!\\)[^@/\s]+@", name) is not None


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
    """Take an address apart; None where it has no host, or a port that is no number.

    `udp://@:5000` and `udp://:5000` have an empty host: whoever sends to this machine.
    """
    scheme, separator, tail = uri.partition("://")
    credentials, rest = _parts(tail)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    match = _HOST_AND_PORT.fullmatch(authority)
    if not separator or match is None or not (match[1] or scheme.lower() == "udp"):
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
    rest = _SECRET.sub(lambda secret: secret[1] + HIDDEN, rest)
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
