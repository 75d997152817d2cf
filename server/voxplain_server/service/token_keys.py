"""The public keys that sign bearer tokens: a JWKS file, read again when it changes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jwt

from voxplain_server.access import AccessRefused
from voxplain_server.service.watched_files import WatchedFiles

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Signatures that are taken: all of two keys. A shared secret would let every service that checks tokens make them."""

_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA"}
_MIN_RSA_BITS = 2048
_MAX_FILE_BYTES = 1 << 20

log = logging.getLogger(__name__)


class TokenKeys:
    """Keys by their id. Fails closed: while the file cannot be read there are none.

    Args:
        path: the JWKS file.

    Raises:
        AccessRefused: it cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = WatchedFiles([path])
        self._files.changed()
        self._keys: dict[str, jwt.PyJWK] | None = read_keys(path)

    def now(self) -> dict[str, jwt.PyJWK] | None:
        """The keys as the file has them now; None while it cannot be read."""
        if self._files.changed():
            try:
                self._keys = read_keys(self._path)
            except AccessRefused:
                self._keys = None
                log.warning("token_keys_unreadable_all_refused", extra={"fields": {}})
        return self._keys


def read_keys(path: Path) -> dict[str, jwt.PyJWK]:
    """Read a JWKS file; each key is bound to one algorithm.

    Raises:
        AccessRefused: no JWKS, a private or shared key in it, a key without an id, or one that is too weak.
    """
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        raise AccessRefused("--token-keys must be a readable JSON Web Key Set of at most 1 MiB") from None
    if not isinstance(told, dict) or not isinstance(told.get("keys"), list):
        raise AccessRefused('--token-keys must be a JSON Web Key Set, {"keys": [...]}')
    keys: dict[str, jwt.PyJWK] = {}
    for each in told["keys"]:
        if not isinstance(each, dict):
            raise AccessRefused("every key of --token-keys is an object")
        if each.get("use", "sig") != "sig":
            continue
        name = each.get("kid")
        if not isinstance(name, str) or not name or name in keys:
            raise AccessRefused("every key of --token-keys needs a kid of its own")
        keys[name] = _key(each)
    if not keys:
        raise AccessRefused("--token-keys holds no key that signs")
    return keys


def _key(told: dict[str, Any]) -> jwt.PyJWK:
    if told.get("kty") == "oct" or "d" in told or "k" in told:
        raise AccessRefused("--token-keys must hold public keys only: neither shared secrets nor private keys")
    algorithm = told.get("alg") or ("RS256" if told.get("kty") == "RSA" else _BY_CURVE.get(str(told.get("crv"))))
    if algorithm not in ALGORITHMS:
        raise AccessRefused(f"a key of --token-keys is of no algorithm that is taken: {', '.join(ALGORITHMS)}")
    try:
        key = jwt.PyJWK(told, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise AccessRefused("a key of --token-keys cannot be read, or does not fit its alg") from None
    if told.get("kty") == "RSA" and key.key.key_size < _MIN_RSA_BITS:
        raise AccessRefused(f"an RSA key of --token-keys has less than {_MIN_RSA_BITS} bits")
    return key
