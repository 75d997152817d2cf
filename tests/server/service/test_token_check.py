"""Which bearer tokens are taken: signed by a known key with its own algorithm, for us, now."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from voxplain.errors import ServerUnavailable, Unauthenticated
from voxplain_server.access import AccessRefused
from voxplain_server.service.token_check import TokenCheck
from voxplain_server.service.token_keys import TokenKeys, read_keys

from tests.server.service.tokens import AUDIENCE, EC_KEY, ED_KEY, ISSUER, RSA_KEY, claims, public_jwk, token, write_keys


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    all_keys = [public_jwk(EC_KEY, "ec"), public_jwk(RSA_KEY, "rsa", alg="RS256"), public_jwk(ED_KEY, "ed")]
    return write_keys(tmp_path / "jwks.json", *all_keys)


@pytest.fixture
def check(keys: Path) -> TokenCheck:
    return TokenCheck(TokenKeys(keys), issuer=ISSUER, audience=AUDIENCE)


def reason(check: TokenCheck, bad: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        check.read(bad)
    assert bad[:20] not in str(refused.value) or not bad
    return refused.value.reason


def forged(header: dict[str, Any], body: dict[str, Any], *, secret: bytes = b"") -> str:
    """A token put together by hand; signed with a shared secret where one is given."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, body)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_good_token_gives_subject_and_scopes(check: TokenCheck) -> None:
    assert check.read(token()) == ("pacs", frozenset({"voxplain.explain"}))
    assert check.read(token(RSA_KEY, kid="rsa", alg="RS256", scope="a b"))[1] == {"a", "b"}
    assert check.read(token(ED_KEY, kid="ed", alg="EdDSA", scope=None, scp=["c"]))[1] == {"c"}
    assert check.read(token(aud=["other", AUDIENCE], nbf=None, scope=None))[1] == frozenset()


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"nbf": 4_102_444_800},
        {"nbf": "never"},
        {"sub": None},
        {"sub": 7},
        {"scope": 7},
        {"scope": None, "scp": [7]},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused_without_saying_which(check: TokenCheck, wrong: dict[str, Any]) -> None:
    assert reason(check, token(**wrong)) == "TOKEN_INVALID"


def test_an_expired_token_is_told_apart_only_where_its_signature_holds(check: TokenCheck) -> None:
    assert reason(check, token(exp=time.time() - 60)) == "TOKEN_EXPIRED"
    assert reason(check, token(exp=time.time() - 60)[:-6] + "AAAAAA") == "TOKEN_INVALID"
    assert check.read(token(exp=time.time() - 10))[0] == "pacs"


def test_a_token_without_a_signature_is_refused(check: TokenCheck) -> None:
    for name in ("none", "None", "NONE", ""):
        assert reason(check, forged({"alg": name, "typ": "JWT", "kid": "ec"}, claims())) == "TOKEN_INVALID"


def test_a_public_key_is_no_shared_secret(check: TokenCheck) -> None:
    forms = [
        (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
    ]
    for encoding, form in forms:
        secret = RSA_KEY.public_key().public_bytes(encoding, form)
        assert reason(check, forged({"alg": "HS256", "kid": "rsa"}, claims(), secret=secret)) == "TOKEN_INVALID"


def test_a_key_is_used_with_its_own_algorithm_only(check: TokenCheck) -> None:
    assert reason(check, token(RSA_KEY, kid="rsa", alg="RS512")) == "TOKEN_INVALID"
    assert reason(check, token(RSA_KEY, kid="rsa", alg="PS256")) == "TOKEN_INVALID"
    assert reason(check, token(EC_KEY, kid="rsa", alg="ES256")) == "TOKEN_INVALID"


@pytest.mark.parametrize("kid", [None, "", "unknown", "../jwks.json"])
def test_a_token_names_a_known_key(check: TokenCheck, kid: str | None) -> None:
    assert reason(check, token(kid=kid)) == "TOKEN_INVALID"


def test_a_key_that_the_token_brings_itself_is_not_looked_at(check: TokenCheck) -> None:
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for head in ({"jwk": public_jwk(mine, "rsa")}, {"jku": "http://127.0.0.1/keys"}, {"x5u": "http://127.0.0.1/c"}):
        assert reason(check, token(mine, kid="rsa", alg="RS256", head=head)) == "TOKEN_INVALID"


@pytest.mark.parametrize("head", [{"crit": ["exp"]}, {"zip": "DEF"}, {"typ": "dpop+jwt"}, {"typ": 7}])
def test_a_header_that_is_not_understood_is_refused(check: TokenCheck, head: dict[str, Any]) -> None:
    assert reason(check, token(head=head)) == "TOKEN_INVALID"


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é" * 40, "{}", "A" * 9000, "." * 5000, "eyJ" * 2000, "\0.\0.\0"])
def test_what_is_no_token_is_refused(check: TokenCheck, text: str) -> None:
    assert reason(check, text) == "TOKEN_INVALID"


def test_keys_are_read_again_when_their_file_changes(check: TokenCheck, keys: Path) -> None:
    assert check.read(token())
    write_keys(keys, public_jwk(ED_KEY, "new"))
    assert reason(check, token()) == "TOKEN_INVALID"
    assert check.read(token(ED_KEY, kid="new", alg="EdDSA"))


@pytest.mark.parametrize("content", [None, "", "{", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}'])
def test_without_readable_keys_no_token_is_taken(check: TokenCheck, keys: Path, content: str | None) -> None:
    before = keys.read_text()
    keys.unlink() if content is None else keys.write_text(content)
    with pytest.raises(ServerUnavailable) as refused:
        check.read(token())
    assert (refused.value.reason, refused.value.retry_after_s) == ("TOKEN_KEYS_UNAVAILABLE", 5.0)
    keys.write_text(before)
    assert check.read(token())


def weak() -> dict[str, Any]:
    return public_jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), "weak")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([{"kty": "oct", "k": "AAAA", "kid": "a"}], "public keys only"),
        ([public_jwk(EC_KEY, "a") | {"d": "AAAA"}], "public keys only"),
        ([public_jwk(EC_KEY, "")], "kid"),
        ([public_jwk(EC_KEY, "a"), public_jwk(ED_KEY, "a")], "kid of its own"),
        ([public_jwk(EC_KEY, "a", alg="HS256")], "algorithm"),
        ([public_jwk(EC_KEY, "a", alg="none")], "algorithm"),
        ([public_jwk(EC_KEY, "a", alg="RS256")], "does not fit"),
        ([public_jwk(EC_KEY, "a", x="AA")], "cannot be read"),
        ([public_jwk(EC_KEY, "a", use="enc")], "no key that signs"),
        ([7], "object"),
        ([], "no key that signs"),
    ],
)
def test_a_key_set_that_would_open_the_door_is_refused(tmp_path: Path, wrong: list[Any], told: str) -> None:
    with pytest.raises(AccessRefused, match=told):
        read_keys(write_keys(tmp_path / "jwks.json", *wrong))


def test_a_weak_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccessRefused, match="2048"):
        read_keys(write_keys(tmp_path / "jwks.json", weak()))
