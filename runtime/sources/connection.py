"""Reaching a server, and proving who we are: what RTSP and HTTP have in common."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
import ssl
from collections.abc import Sequence

from runtime.errors import SourceError
from runtime.uris import Address

CONNECT_TIMEOUT_S = 2.0
PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_HASHES = {"md5": hashlib.md5, "sha-256": hashlib.sha256}


def connected(
    address: Address, timeout_s: float = CONNECT_TIMEOUT_S, tls: ssl.SSLContext | None = None
) -> socket.socket:
    """A TCP connection to a server, inside TLS if a context for it is given.

    The look-up of a host's name takes as long as this system's resolver takes for it; connecting
    takes `timeout_s` for each of its addresses, and each later wait lasts as long too.

    Raises:
        SourceError: why it cannot be reached.
    """
    port = address.port or PORTS[address.scheme]
    who = f"{address.host}:{port}"
    try:
        connection = socket.create_connection((address.host, port), timeout_s)
    except socket.gaierror as error:
        raise SourceError(
            f"there is no host {address.host}",
            "a name that this network knows, or an IP address",
            "check the address",
        ) from error
    except ConnectionRefusedError as error:
        raise SourceError(
            f"{who} refuses the connection: nobody listens there",
            f"a server for {address.scheme}://",
            "start it, or check the port",
        ) from error
    except TimeoutError as error:
        raise no_answer(who, timeout_s) from error
    except (OSError, UnicodeError) as error:
        raise SourceError(
            f"{who} cannot be reached ({getattr(error, 'strerror', None) or error})",
            "a host in reach of this network",
            "check the address and the network",
        ) from error
    if tls is None:
        return connection
    try:
        return tls.wrap_socket(connection, server_hostname=address.host)
    except OSError as error:
        connection.close()
        told = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise SourceError(
            f"{who} gives no safe connection ({told})",
            "a server whose certificate this system trusts",
            "name its certificate in SSL_CERT_FILE, or use the address without the s",
        ) from error


def no_answer(who: str, waited_s: float) -> SourceError:
    """The error for a server that lets us wait."""
    return SourceError(
        f"{who} does not answer within {waited_s:g} s",
        "a server that is switched on and in reach",
        "check the address, the network and its firewall",
    )


def refused_user(address: Address, shown: str) -> SourceError:
    """The error for a server that answered 401 or 403 to what we know."""
    if address.user:
        return SourceError(
            f"{shown}: the server refuses this user or password",
            "the ones that it knows",
            "correct them in the address; write @ as %40, : as %3A and / as %2F",
        )
    return SourceError(
        f"{shown}: the server asks for a user and a password",
        "an address that has them",
        f"write {address.scheme}://USER:PASSWORD@{address.authority}{address.target}",
    )


def authorization(
    challenges: Sequence[str], method: str, target: str, address: Address
) -> str | None:
    """The value of an `Authorization` header: Digest where it is offered, else Basic.

    Sources: RFC 7617 (Basic), RFC 7616 and 2617 (Digest), RFC 2326 (both for RTSP).

    Args:
        challenges: the values of the answer's `WWW-Authenticate` headers.
        method, target: of the request that it is for, as its first line has them.
        address: has the user and the password.

    Returns:
        None where no challenge is one that we can answer, or there is no user.
    """
    if not address.user:
        return None
    for challenge in challenges:
        kind, _, rest = challenge.strip().partition(" ")
        if kind.lower() == "digest":
            asked = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _parameters(rest)}
            if (answer := _digest(asked, method, target, address)) is not None:
                return answer
    if any(challenge.strip().lower().startswith("basic") for challenge in challenges):
        pair = f"{address.user}:{address.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()
    return None


def _parameters(text: str) -> list[re.Match[str]]:
    return list(_PARAMETER.finditer(text))


def _digest(asked: dict[str, str], method: str, target: str, address: Address) -> str | None:
    algorithm = asked.get("algorithm", "MD5")
    session = algorithm.lower().endswith("-sess")
    make = _HASHES.get(algorithm.lower().removesuffix("-sess"))
    qops = [qop.strip() for qop in asked.get("qop", "").split(",") if qop.strip()]
    if make is None or "nonce" not in asked or (qops and "auth" not in qops):
        return None

    def hashed(*parts: str) -> str:
        return make(":".join(parts).encode()).hexdigest()

    realm, nonce = asked.get("realm", ""), asked["nonce"]
    once, count = secrets.token_hex(8), "00000001"
    secret = hashed(address.user, realm, address.password)
    if session:
        secret = hashed(secret, nonce, once)
    what = hashed(method, target)
    fields = {"username": address.user, "realm": realm, "nonce": nonce, "uri": target}
    if qops:
        fields["response"] = hashed(secret, nonce, count, once, "auth", what)
        fields["cnonce"] = once
    else:
        fields["response"] = hashed(secret, nonce, what)
    if "opaque" in asked:
        fields["opaque"] = asked["opaque"]
    told = ", ".join(f'{name}="{value}"' for name, value in fields.items())
    if "algorithm" in asked:
        told += f", algorithm={algorithm}"
    return f"Digest {told}" + (f", qop=auth, nc={count}" if qops else "")
