"""How a client shows a server who it is, and makes sure who the server is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

import grpc
from voxplain.errors import InvalidSpec

_SCHEMES = re.compile(r"^(?:dns:(?://[^/]*/)?|ipv4:|ipv6:)")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """TLS and a bearer token. Files are read when a client is made, the token's before every call: it may be renewed.

    Attributes:
        tls: speak TLS; given by itself when one of the next three is.
        ca: PEM file of the authorities that may vouch for the server; None: those that gRPC brings with it.
        cert, key: PEM files of the client's certificate chain and its key, for servers that ask for one.
        token_file: file with a bearer token. It never goes to another host in plaintext.
    """

    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token_file: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the connection speaks TLS."""
        return self.tls or any(path is not None for path in (self.ca, self.cert, self.key))

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What a channel is opened with; None: plaintext.

        Raises:
            InvalidSpec: ACCESS_INVALID; a file cannot be read, or certificate and key are not given together.
        """
        if not self.encrypted:
            return None
        if (self.cert is None) != (self.key is None):
            raise _refused("cert", "a client certificate and its key go together: give both or neither")
        return grpc.ssl_channel_credentials(_content(self.ca, "ca"), _content(self.key, "key"), _content(self.cert, "cert"))

    def check(self, address: str, *, encrypted: bool) -> None:
        """Refuse to send a token where others could read it.

        Args:
            address: of the server.
            encrypted: whether the channel speaks TLS.

        Raises:
            InvalidSpec: ACCESS_INVALID.
        """
        if self.token_file is not None and not encrypted and not is_this_host(address):
            raise _refused("token_file", "a token would leave this host in plaintext: use TLS")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries.

        Raises:
            InvalidSpec: ACCESS_INVALID; the token's file cannot be read, or holds no token.
        """
        if self.token_file is None:
            return ()
        content = _content(self.token_file, "token_file") or b""
        token = content.decode("ascii", "replace").strip()
        if not _TOKEN.fullmatch(token):
            raise _refused("token_file", "the file must hold one bearer token and nothing else")
        return (("authorization", f"Bearer {token}"),)


def is_this_host(address: str) -> bool:
    """Whether HOST:PORT, with or without gRPC's dns:, ipv4: or ipv6:, or unix:PATH, is this host alone."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = _SCHEMES.sub("", address)
    host = host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(path: Path | None, field: str) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError:
        raise _refused(field, "the file cannot be read") from None


def _refused(field: str, message: str) -> InvalidSpec:
    return InvalidSpec("ACCESS_INVALID", message, field=f"access.{field}")
