"""Which inference servers the operator lets voxplain talk to, and how it shows who it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from voxplain_server.models.model_refused import ModelRefused

ENDPOINT = re.compile(r"grpcs?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}")
"""grpcs://host:port is TLS, grpc://host:port is plaintext."""
MAX_ENDPOINT = 300
_RECONNECT_MS = 2000
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 30_000, 10_000


class RemoteAccessRefused(ValueError):
    """Settings of remote models that cannot be; the message names the setting and the remedy, never a path or an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAccess:
    """What an operator sets about remote models.

    A bundle alone never makes the server talk to anybody: bundles are downloaded, and one that names somebody's endpoint
    would send patients' volumes there. The endpoint must stand here too, letter for letter, its scheme included: whoever
    lists one that begins with grpc:// has said that plaintext is meant.

    Attributes:
        endpoints: those that bundles may name; empty: none.
        ca: PEM file of the authorities of their certificates; None: those of the system.
        cert, key: PEM files of our client certificate and its key, for servers that ask who calls (mTLS).
    """

    endpoints: tuple[str, ...] = ()
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def arguments(self) -> list[str]:
        """As a worker's command line."""
        files = (("--remote-ca", self.ca), ("--remote-cert", self.cert), ("--remote-key", self.key))
        told = [text for name, path in files if path is not None for text in (name, str(path))]
        return [*told, *(["--remote-endpoints", ",".join(self.endpoints)] if self.endpoints else [])]

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            RemoteAccessRefused: an endpoint or a file that cannot be.
        """
        if not all(ENDPOINT.fullmatch(endpoint) for endpoint in self.endpoints):
            raise RemoteAccessRefused(
                "--remote-endpoints must list grpcs://host:port, or grpc://host:port for plaintext, divided by commas"
            )
        for name in ("ca", "cert", "key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise RemoteAccessRefused(f"--remote-{name} must name a file that exists")
        if (self.cert is None) != (self.key is None):
            raise RemoteAccessRefused("--remote-cert and --remote-key go together: give both or neither")

    def open_channel(self, endpoint: str, *, max_response_bytes: int) -> grpc.Channel:
        """A channel that is not yet connected. Files are read now, so that a renewed certificate is taken by the next channel.

        Raises:
            ModelRefused: REMOTE_NOT_ALLOWED, REMOTE_CERTIFICATE.
        """
        if endpoint not in self.endpoints:
            told = (
                "This server's operator has not listed the endpoint that the bundle names. List it, as it stands there, in "
                "--remote-endpoints if volumes may go to it."
            )
            raise ModelRefused("REMOTE_NOT_ALLOWED", told)
        scheme, _, target = endpoint.partition("://")
        # With its scheme, because a host called "unix" would else be a path.
        target = f"dns:///{target}"
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_response_bytes),
            # Replicas behind one name share the requests.
            ("grpc.lb_policy_name", "round_robin"),
            # A proxy that some variable names must not see volumes.
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ]
        if scheme == "grpc":
            return grpc.insecure_channel(target, options)
        try:
            ca, key, cert = (None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert))
        except OSError:
            told = "A certificate file of --remote-ca, --remote-cert or --remote-key cannot be read. Mend it or its rights."
            raise ModelRefused("REMOTE_CERTIFICATE", told) from None
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), options)


NO_REMOTE = RemoteAccess()
"""No bundle may name a remote model."""
