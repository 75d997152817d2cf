"""Who may reach the service port: what the operator set, and which settings do not go together."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path


class AccessRefused(ValueError):
    """Settings or files of access that cannot be; the message names the setting and the remedy, never a path or a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What protects the service port. Health and metrics have ports of their own, in plaintext, and answer nothing else.

    Attributes:
        tls_cert, tls_key: PEM files of the server's certificate chain and its key; read again when they change.
        tls_client_ca: PEM file of the authorities whose client certificates are taken; every client must show one then.
        token_keys: JWKS file of public keys that sign bearer tokens; every call must carry a token then.
        token_issuer, token_audience: the `iss` and `aud` that tokens must have.
        policy: JSON file that says who may call which method; None: whoever is let in may call every method.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token_keys: Path | None = None
    token_issuer: str = ""
    token_audience: str = ""
    policy: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the service port speaks TLS."""
        return self.tls_cert is not None

    @property
    def knows_callers(self) -> bool:
        """Whether callers must show who they are."""
        return self.tls_client_ca is not None or self.token_keys is not None


def check_access(access: Access, *, host: str, insecure: bool) -> None:
    """Refuse what does not go together.

    Raises:
        AccessRefused: also where the port would be open to others without TLS, or to anybody, and `insecure` does not say so.
    """
    for name in ("tls_cert", "tls_key", "tls_client_ca", "token_keys", "policy"):
        path = getattr(access, name)
        if path is not None and not path.is_file():
            raise AccessRefused(f"--{name.replace('_', '-')} must name a file that exists")
    if (access.tls_cert is None) != (access.tls_key is None):
        raise AccessRefused("--tls-cert and --tls-key go together: give both or neither")
    if access.tls_client_ca is not None and not access.encrypted:
        raise AccessRefused("--tls-client-ca needs TLS: give --tls-cert and --tls-key")
    if len({access.token_keys is None, not access.token_issuer, not access.token_audience}) != 1:
        raise AccessRefused("--token-keys, --token-issuer and --token-audience go together: give all or none")
    if insecure or is_loopback(host):
        return
    if not access.encrypted:
        raise AccessRefused(
            "patient volumes would leave this host in plaintext: give --tls-cert and --tls-key, bind --host 127.0.0.1, or say "
            "--insecure where the network itself is encrypted"
        )
    if not access.knows_callers:
        raise AccessRefused(
            "anybody could call this server: give --tls-client-ca or --token-keys, or say --insecure where the network itself "
            "knows the callers"
        )


def is_loopback(host: str) -> bool:
    """Whether an address to bind is of this host alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
