"""The options by which every sub-command reaches its server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from voxplain_client.access import Access
from voxplain_client.client import Client

_FILES = ("ca", "cert", "key", "token_file")
_ON = ("1", "true", "yes")


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add --server and what protects the connection; each is also a variable, --token-file is VOXPLAIN_TOKEN_FILE."""
    group = parser.add_argument_group("connection", "each is also a variable: --token-file is VOXPLAIN_TOKEN_FILE")
    group.add_argument("--server", metavar="HOST:PORT", help="default: VOXPLAIN_SERVER, else 127.0.0.1:50051")
    group.add_argument("--tls", action="store_true", default=_variable("tls").lower() in _ON, help="speak TLS")
    _add_file(group, "ca", "authorities that may vouch for the server; default: those that gRPC brings with it")
    _add_file(group, "cert", "this client's certificate chain, where the server asks for one")
    _add_file(group, "key", "its private key")
    _add_file(group, "token_file", "bearer token; read anew for every call")


def open_client(options: argparse.Namespace) -> Client:
    """The client that the options describe.

    Raises:
        InvalidSpec: they do not go together, or a file cannot be read.
    """
    return Client(options.server, access=Access(tls=options.tls, **{name: getattr(options, name) for name in _FILES}))


def _add_file(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    path = Path(_variable(name)) if _variable(name) else None
    group.add_argument(f"--{name.replace('_', '-')}", type=Path, default=path, metavar="FILE", help=text)


def _variable(name: str) -> str:
    return os.environ.get(f"VOXPLAIN_{name.upper()}", "")
