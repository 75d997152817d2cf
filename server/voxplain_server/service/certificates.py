"""The server's certificate, renewed without a restart."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable
from typing import cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from voxplain_server.access import Access, AccessRefused
from voxplain_server.service.watched_files import WatchedFiles

log = logging.getLogger(__name__)


class Certificates:
    """Certificate chain, key and authorities from files; each new connection gets what the files hold then.

    Connections that are open keep what they began with. Files that do not fit one another, as in the middle of a rotation, or
    a certificate that has expired, never replace those in use.

    Args:
        access: names the files; `tls_cert` and `tls_key` at least.

    Raises:
        AccessRefused: the files cannot be used now.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        paths = (access.tls_cert, access.tls_key, access.tls_client_ca)
        self._files = WatchedFiles([path for path in paths if path is not None])
        self._files.changed()
        # gRPC asks from threads of its own.
        self._lock = threading.Lock()
        self._first = read_certificates(access)

    def credentials(self) -> grpc.ServerCredentials:
        """What a server binds its port with."""
        # The annotation forgets None, which gRPC takes for "as before".
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._renewed)
        mutual = self._access.tls_client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first, fetch, require_client_authentication=mutual)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked at every handshake; None: as before."""
        with self._lock:
            if not self._files.changed():
                return None
            try:
                return read_certificates(self._access)
            except AccessRefused:
                log.warning("tls_files_refused_former_ones_stay", extra={"fields": {}})
                return None


def read_certificates(access: Access) -> grpc.ServerCertificateConfiguration:
    """Read the files and see that they fit one another.

    Raises:
        AccessRefused: naming the setting.
    """
    chain, key = _content(access.tls_cert, "--tls-cert"), _content(access.tls_key, "--tls-key")
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise AccessRefused("--tls-cert must be a PEM file of a certificate chain, the server's own first") from None
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise AccessRefused("--tls-key must be a PEM file of a private key without a password") from None
    if _public_bytes(private.public_key()) != _public_bytes(leaf.public_key()):
        raise AccessRefused("--tls-key is not the key of the certificate in --tls-cert")
    if leaf.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise AccessRefused("the certificate in --tls-cert has expired")
    authorities: bytes | None = None
    if access.tls_client_ca is not None:
        authorities = _content(access.tls_client_ca, "--tls-client-ca")
        try:
            x509.load_pem_x509_certificates(authorities)
        except ValueError:
            raise AccessRefused("--tls-client-ca must be a PEM file of certificates") from None
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities)


def _content(path: object, setting: str) -> bytes:
    try:
        with open(str(path), "rb") as file:  # noqa: PTH123
            return file.read(1 << 20)
    except OSError:
        raise AccessRefused(f"the file of {setting} cannot be read") from None


def _public_bytes(key: object) -> bytes:
    told: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return told
