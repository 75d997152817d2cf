"""A second server that speaks mutual TLS and asks for a token, and what a client shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.conformance.trouble import SERVER_ARGUMENTS
from tests.server.service.authority import Authority, replace
from tests.server.service.tokens import AUDIENCE, EC_KEY, ISSUER, public_jwk, token, write_keys
from tests.serving import RunningServer

TOKEN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Protected:
    """The server, and files of a client that may do everything.

    Attributes:
        address: HOST:PORT.
        ca, certificate, key: PEM files.
        token: good for an hour.
    """

    address: str
    ca: Path
    certificate: Path
    key: Path
    token: str

    def shown(self, access: str) -> dict[str, str]:
        """Fields of a driver's request: all (`access` is "full"), or without what "no-token" and "no-certificate" name."""
        fields = {"ca_file": str(self.ca)}
        if access != "no-certificate":
            fields |= {"certificate_file": str(self.certificate), "key_file": str(self.key)}
        return fields if access == "no-token" else fields | {"token": self.token}


@contextmanager
def protected_server(models: Path, folder: Path) -> Iterator[Protected]:
    """Start it; files go into `folder`."""
    authority = Authority(folder)
    cert, key = authority.server()
    leaf = authority.made.issue_cert("conformance.example")
    certificate = replace(folder / "client.crt", b"".join(each.bytes() for each in leaf.cert_chain_pems))
    # As PKCS #8, the only form that Java reads.
    loaded = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    client_key = replace(folder / "client.key", loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ca = authority.authorities()
    keys = write_keys(folder / "jwks.json", public_jwk(EC_KEY, "ec"))
    tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca)]
    tokens = ["--token-keys", str(keys), "--token-issuer", ISSUER, "--token-audience", AUDIENCE]
    with RunningServer(models, [*SERVER_ARGUMENTS, *tls, *tokens]) as server:
        bearer = token(sub="conformance", exp=int(time.time() + TOKEN_SECONDS))
        yield Protected(server.address, ca, certificate, client_key, bearer)
