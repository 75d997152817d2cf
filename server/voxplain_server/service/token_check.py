"""Whether a bearer token is one that this server takes, and whose it is."""

from __future__ import annotations

from typing import Any

import jwt
from voxplain.errors import ServerUnavailable, Unauthenticated

from voxplain_server.service.token_keys import TokenKeys

LEEWAY_SECONDS = 30
"""How far the clocks of issuer and server may differ."""
MAX_TOKEN_CHARACTERS = 8192
RETRY_SECONDS = 5.0

_REQUIRED = ("exp", "iss", "aud", "sub")
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
_MEANT_TO_BE_UNDERSTOOD = ("crit", "b64", "zip")
"""Header members that change what the token means; none of them is understood here."""


class TokenCheck:
    """Checks signature, issuer, audience and times of JSON Web Tokens (RFC 7519, with the advice of RFC 8725).

    Args:
        keys: whose signatures are taken.
        issuer: the `iss` that a token must have.
        audience: the `aud` that it must have, alone or among others.
    """

    def __init__(self, keys: TokenKeys, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def read(self, token: str) -> tuple[str, frozenset[str]]:
        """The subject and the scopes of a token.

        Raises:
            Unauthenticated: TOKEN_EXPIRED, or TOKEN_INVALID for whatever else is wrong: what, is not told.
            ServerUnavailable: TOKEN_KEYS_UNAVAILABLE; the operator's file of keys cannot be read.
        """
        keys = self._keys.now()
        if keys is None:
            raise ServerUnavailable(
                "TOKEN_KEYS_UNAVAILABLE", "this server cannot check tokens now; try again", retry_after_s=RETRY_SECONDS
            )
        try:
            claims = self._claims(token, keys)
            scopes = _scopes(claims)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("TOKEN_EXPIRED", "the token has expired: get a new one") from None
        except Exception:
            # Whatever a library makes of hostile text: a token that cannot be checked is none.
            raise _invalid() from None
        return str(claims["sub"]), scopes

    def _claims(self, token: str, keys: dict[str, jwt.PyJWK]) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _invalid()
        header = jwt.get_unverified_header(token)
        key = keys.get(str(header.get("kid", "")))
        kind = header.get("typ")
        if key is None or any(member in header for member in _MEANT_TO_BE_UNDERSTOOD):
            raise _invalid()
        if (kind.lower() if isinstance(kind, str) else kind) not in _TYPES:
            raise _invalid()
        return jwt.decode(
            token,
            key,
            # The key's own and no other: the header is the sender's word.
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": list(_REQUIRED)},
        )


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """`scope` (RFC 8693: words) or `scp`, as some issuers call it (words or a list)."""
    told = claims.get("scope", claims.get("scp", ""))
    if isinstance(told, str):
        return frozenset(told.split())
    if isinstance(told, list) and all(isinstance(each, str) for each in told):
        return frozenset(told)
    raise _invalid()


def _invalid() -> Unauthenticated:
    return Unauthenticated("TOKEN_INVALID", "the token is none that this server takes")
