"""Certificates for tests: an authority, and files as a mounted secret holds them."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import trustme
from voxplain_server.access import Access

NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Authority:
    """A certificate authority that writes what it issues into a folder.

    Attributes:
        folder: where to.
    """

    folder: Path
    made: trustme.CA = field(default_factory=trustme.CA)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.made.cert_pem.bytes()

    def server(self, *, expired: bool = False, name: str = "127.0.0.1") -> tuple[Path, Path]:
        """Write tls.crt and tls.key anew, each at once, as a rotation does."""
        not_after = NOW - datetime.timedelta(hours=1) if expired else None
        leaf = self.made.issue_cert(name, not_after=not_after, not_before=NOW - datetime.timedelta(days=2))
        chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
        return replace(self.folder / "tls.crt", chain), replace(self.folder / "tls.key", leaf.private_key_pem.bytes())

    def authorities(self) -> Path:
        """Write ca.crt anew."""
        return replace(self.folder / "ca.crt", self.pem)

    def access(self, *, mutual: bool = False) -> Access:
        """TLS with a fresh certificate, or mutual TLS."""
        cert, key = self.server()
        return Access(tls_cert=cert, tls_key=key, tls_client_ca=self.authorities() if mutual else None)

    def client(self, name: str | None = None, *, expired: bool = False, roots: bytes | None = None) -> grpc.ChannelCredentials:
        """Trust this authority (or `roots`); with a name, show a certificate of that name."""
        if name is None:
            return grpc.ssl_channel_credentials(roots or self.pem)
        not_after = NOW - datetime.timedelta(hours=1) if expired else None
        leaf = self.made.issue_cert(name, not_after=not_after, not_before=NOW - datetime.timedelta(days=2))
        chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
        return grpc.ssl_channel_credentials(roots or self.pem, leaf.private_key_pem.bytes(), chain)


def replace(path: Path, content: bytes) -> Path:
    """Put a file in the place of another in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)  # noqa: PTH105
    return path
