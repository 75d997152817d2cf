"""Nobody passes the guard but whom the policy names, and nothing of a refused call is read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from voxplain.inference import open_inference_pb2
from voxplain.v1 import catalog_pb2, explain_pb2
from voxplain_server.access import Access, AccessRefused
from voxplain_server.service import explain as explain_module
from voxplain_server.service.access_policy import (
    CATALOG,
    EXPLAIN,
    INFER,
    INFERENCE_FACTS,
    METHODS,
    REFLECTION,
    Caller,
    built_in_policy,
    read_policy,
)

from tests.server.service.authority import Authority
from tests.server.service.front import case_messages, good_spec, running_front, spec_message
from tests.server.service.tokens import AUDIENCE, EC_KEY, ISSUER, public_jwk, token, write_keys

CONTRACT: tuple[FileDescriptor, ...] = (
    explain_pb2.DESCRIPTOR,
    catalog_pb2.DESCRIPTOR,
    open_inference_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


def contract_methods() -> list[str]:
    """Every method of every service that the port can offer, from the descriptors."""
    return [
        f"/{service.full_name}/{method.name}"
        for file in CONTRACT
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def write_policy(folder: Path, *rules: dict[str, Any]) -> Path:
    path = folder / "policy.json"
    path.write_text(json.dumps({"rules": rules}))
    return path


def with_tokens(folder: Path, policy: Path | None = None) -> Access:
    keys = write_keys(folder / "jwks.json", public_jwk(EC_KEY, "ec"))
    return Access(token_keys=keys, token_issuer=ISSUER, token_audience=AUDIENCE, policy=policy)


async def call(
    address: str,
    method: str,
    messages: list[bytes] | None = None,
    *,
    bearer: str | None = None,
    metadata: tuple[tuple[str, str], ...] = (),
    credentials: grpc.ChannelCredentials | None = None,
) -> tuple[str, str]:
    """Code and reason of a call's end."""
    headers = metadata if bearer is None else (("authorization", f"Bearer {bearer}"),)
    return await asyncio.to_thread(_call, address, method, messages, headers, credentials)


def _call(
    address: str,
    method: str,
    messages: list[bytes] | None,
    metadata: tuple[tuple[str, str], ...],
    credentials: grpc.ChannelCredentials | None,
) -> tuple[str, str]:
    def requests() -> Iterator[bytes]:
        yield from [b""] if messages is None else messages

    channel = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
    with channel:
        multi: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        called: Any = multi(requests(), timeout=20, metadata=metadata)
        try:
            for _ in called:
                pass
        except grpc.RpcError:
            pass
        status = rpc_status.from_call(called)
        info = error_details_pb2.ErrorInfo()
        for detail in status.details if status is not None else ():
            detail.Unpack(info)
        return str(called.code().name), info.reason


def test_the_policy_knows_every_method_of_the_contract_and_no_other() -> None:
    assert sorted(METHODS) == sorted(contract_methods())
    policy = built_in_policy(tokens=False)
    assert all(policy.admits(method, Caller()) for method in contract_methods())
    assert not policy.admits("/voxplain.v1.ExplainService/Other", Caller())


def test_tokens_need_a_scope_of_ours() -> None:
    policy = built_in_policy(tokens=True)
    nobody, looker, predictor, explainer = (
        Caller("a", frozenset(scopes)) for scopes in ((), ("voxplain.catalog",), ("voxplain.infer",), ("voxplain.explain",))
    )
    assert not any(policy.admits(method, nobody) for method in METHODS)
    assert [method for method in METHODS if policy.admits(method, looker)] == [*CATALOG, *INFERENCE_FACTS, REFLECTION]
    assert [method for method in METHODS if policy.admits(method, predictor)] == [INFER, *INFERENCE_FACTS]
    assert all(policy.admits(method, explainer) for method in METHODS)


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_is_denied_unless_a_rule_names_it(tmp_path: Path, method: str) -> None:
    policy = write_policy(tmp_path, *({"methods": [other]} for other in METHODS if other != method))
    async with running_front(access=Access(policy=policy), reflection=True) as front:
        assert await call(front.address, method) == ("PERMISSION_DENIED", "METHOD_DENIED")
        others = [await call(front.address, other) for other in METHODS if other != method]
    assert all(code != "PERMISSION_DENIED" for code, _ in others)


async def test_without_a_rule_everything_is_denied_and_counted(tmp_path: Path) -> None:
    async with running_front(access=Access(policy=write_policy(tmp_path)), reflection=True) as front:
        for method in METHODS:
            assert await call(front.address, method) == ("PERMISSION_DENIED", "METHOD_DENIED")
        counted = front.metrics.registry.get_sample_value("voxplain_refused_calls_total", {"reason": "METHOD_DENIED"})
        assert counted == len(METHODS)


async def test_a_method_that_there_is_not_is_unimplemented() -> None:
    async with running_front() as front:
        assert (await call(front.address, "/voxplain.v1.ExplainService/Other"))[0] == "UNIMPLEMENTED"
        assert (await call(front.address, "/grpc.health.v1.Health/Check"))[0] == "UNIMPLEMENTED"
        assert (await call(front.address, REFLECTION))[0] == "UNIMPLEMENTED"


async def test_a_token_opens_what_its_scope_allows(tmp_path: Path) -> None:
    whole_case = [spec_message(good_spec()), *case_messages()]
    async with running_front(access=with_tokens(tmp_path)) as front:
        assert await call(front.address, EXPLAIN, whole_case, bearer=token()) == ("OK", "")
        assert await call(front.address, CATALOG[0], bearer=token(scope="voxplain.catalog")) == ("OK", "")
        denied = await call(front.address, EXPLAIN, whole_case, bearer=token(scope="voxplain.catalog"))
        assert denied == ("PERMISSION_DENIED", "METHOD_DENIED")
        assert (await call(front.address, CATALOG[0], bearer=token(scope="other")))[1] == "METHOD_DENIED"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", "Basic dXNlcjpzZWNyZXQ="),), "TOKEN_INVALID"),
        ((("authorization", "Bearer"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer "),), "TOKEN_INVALID"),
        ((("authorization", "Bearer secret-token"),), "TOKEN_INVALID"),
        ((("authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token()}")), "TOKEN_INVALID"),
        ((("authorization", f"Bearer {token(exp=time.time() - 600)}"),), "TOKEN_EXPIRED"),
    ],
)
async def test_a_call_without_a_good_token_is_unauthenticated_and_the_log_does_not_have_it(
    tmp_path: Path, metadata: tuple[tuple[str, str], ...], reason: str
) -> None:
    async with running_front(access=with_tokens(tmp_path)) as front:
        for method in (EXPLAIN, *CATALOG, INFER, *INFERENCE_FACTS):
            assert await call(front.address, method, metadata=metadata) == ("UNAUTHENTICATED", reason)
        log = front.log.getvalue()
    assert reason in log
    assert not any(word in log for word in ("Bearer", "secret", "dXNlcjpz", "eyJ", "pacs"))


async def test_nothing_of_a_refused_body_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    async def note_read(context: object, limits: object) -> Any:
        read.append(context)
        raise AssertionError

    monkeypatch.setattr(explain_module, "read_spec", note_read)
    seen: list[bytes] = []
    real = catalog_pb2.ListModelsRequest.FromString

    def note_message(data: bytes) -> catalog_pb2.ListModelsRequest:
        seen.append(data)
        return real(data)

    monkeypatch.setattr(catalog_pb2.ListModelsRequest, "FromString", note_message)
    async with running_front(access=with_tokens(tmp_path)) as front:
        # No message is ever sent: a handler that waited for one would not answer.
        for method in (EXPLAIN, *CATALOG, INFER, *INFERENCE_FACTS):
            multi: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = front.channel.stream_stream(method)
            opened = multi()
            async with asyncio.timeout(5):
                assert await opened.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not read
    assert not seen


async def test_a_unary_message_that_is_none_is_refused_by_name() -> None:
    async with running_front() as front:
        for method in (*CATALOG, INFER, *INFERENCE_FACTS):
            assert await call(front.address, method, [b"\xff\xff\xff"]) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
            assert await call(front.address, method, []) == ("INVALID_ARGUMENT", "EMPTY_MESSAGE")


async def test_a_rule_can_ask_for_subjects_and_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.access(mutual=True)
    rules = [
        {"methods": [EXPLAIN], "subjects": ["pacs"], "certificates": ["pacs.example"]},
        {"methods": list(CATALOG), "certificates": ["pacs.example", "viewer.example"]},
    ]
    tokens = with_tokens(tmp_path, write_policy(tmp_path, *rules))
    access = Access(
        tls_cert=tls.tls_cert,
        tls_key=tls.tls_key,
        tls_client_ca=tls.tls_client_ca,
        token_keys=tokens.token_keys,
        token_issuer=ISSUER,
        token_audience=AUDIENCE,
        policy=tokens.policy,
    )
    pacs, viewer, other = (authority.client(f"{name}.example") for name in ("pacs", "viewer", "other"))
    whole_case = [spec_message(good_spec()), *case_messages()]
    async with running_front(access=access) as front:
        assert await call(front.address, EXPLAIN, whole_case, bearer=token(), credentials=pacs) == ("OK", "")
        assert (await call(front.address, EXPLAIN, bearer=token(sub="eve"), credentials=pacs))[1] == "METHOD_DENIED"
        assert (await call(front.address, EXPLAIN, bearer=token(), credentials=viewer))[1] == "METHOD_DENIED"
        assert await call(front.address, CATALOG[2], bearer=token(), credentials=viewer) == ("OK", "")
        assert (await call(front.address, CATALOG[2], bearer=token(), credentials=other))[1] == "METHOD_DENIED"
        assert (await call(front.address, CATALOG[2], credentials=viewer))[1] == "TOKEN_MISSING"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "readable"),
        ("[]", "rules"),
        ('{"rules": [], "default": "allow"}', "rules"),
        ('{"rules": [{}]}', "needs methods"),
        ('{"rules": [{"methods": ["/voxplain.v1.ExplainService/*"]}]}', "names a method"),
        ('{"rules": [{"methods": []}]}', "none of them empty"),
        ('{"rules": [{"methods": "all"}]}', "lists of names"),
        (json.dumps({"rules": [{"methods": [EXPLAIN], "scope": ["a"]}]}), "may have scopes"),
        (json.dumps({"rules": [{"methods": [EXPLAIN], "scopes": ["a"]}]}), "--token-keys"),
        (json.dumps({"rules": [{"methods": [EXPLAIN], "certificates": ["a"]}]}), "--tls-client-ca"),
    ],
)
def test_a_policy_that_says_what_cannot_be_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(content)
    with pytest.raises(AccessRefused, match=told):
        read_policy(path, tokens=False, certificates=False)
