"""An issuer of bearer tokens, and its key set."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://issuer.example"
AUDIENCE = "voxplain"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: PrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """The public half as a JSON Web Key."""
    kind: Any = jwt.algorithms.OKPAlgorithm
    if isinstance(key, rsa.RSAPrivateKey):
        kind = jwt.algorithms.RSAAlgorithm
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = jwt.algorithms.ECAlgorithm
    return dict(json.loads(kind.to_jwk(key.public_key()))) | {"kid": kid} | more


def write_keys(path: Path, *keys: dict[str, Any]) -> Path:
    """Write a key set."""
    path.write_text(json.dumps({"keys": keys}))
    return path


def claims(**more: Any) -> dict[str, Any]:
    """Those of a good token; None takes one away."""
    now = time.time()
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "pacs", "exp": now + 300, "nbf": now - 5, "scope": "voxplain.explain"}
    return {key: value for key, value in (told | more).items() if value is not None}


def token(key: PrivateKey | str = EC_KEY, *, kid: str | None = "ec", alg: str = "ES256", head: Any = None, **more: Any) -> str:
    """A good token, but for what is said."""
    header = dict(head or {}) | ({} if kid is None else {"kid": kid})
    return jwt.encode(claims(**more), key, algorithm=alg, headers=header)
