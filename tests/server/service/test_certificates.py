"""TLS on the service port: who is let in, and what happens when files are replaced."""

from __future__ import annotations

import asyncio
from dataclasses import replace as changed
from pathlib import Path

import grpc
import pytest
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc
from voxplain_server.access import Access, AccessRefused
from voxplain_server.service.certificates import Certificates

from tests.server.service.authority import Authority, replace
from tests.server.service.front import running_front


async def answers(address: str, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a new connection is let in."""
    return await asyncio.to_thread(_answers, address, credentials)


def _answers(address: str, credentials: grpc.ChannelCredentials | None) -> bool:
    # Channels with equal arguments share a connection; a new handshake is wanted.
    options = (("grpc.use_local_subchannel_pool", 1),)
    with (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options) as channel
    ):
        try:
            catalog_pb2_grpc.CatalogServiceStub(channel).ListMethods(catalog_pb2.ListMethodsRequest(), timeout=5)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return False
        return True


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


async def test_a_client_that_trusts_the_authority_is_served_and_others_are_not(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(folder(tmp_path, "stranger"))
    async with running_front(access=authority.access()) as front:
        assert await answers(front.address, authority.client())
        assert not await answers(front.address, stranger.client())
        assert not await answers(front.address, None)


async def test_mutual_tls_asks_for_a_certificate_of_the_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(folder(tmp_path, "stranger"))
    async with running_front(access=authority.access(mutual=True)) as front:
        assert await answers(front.address, authority.client("pacs.example"))
        assert not await answers(front.address, authority.client())
        assert not await answers(front.address, stranger.client("pacs.example", roots=authority.pem))
        assert not await answers(front.address, authority.client("pacs.example", expired=True))
        assert not await answers(front.address, None)


async def test_a_replaced_certificate_is_used_without_a_restart_and_open_connections_stay(tmp_path: Path) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    async with running_front(access=old.access()) as front, grpc.aio.secure_channel(front.address, old.client()) as channel:
        stub = catalog_pb2_grpc.CatalogServiceStub(channel)
        await stub.ListMethods(catalog_pb2.ListMethodsRequest())
        new.server()
        assert await answers(front.address, new.client())
        assert not await answers(front.address, old.client())
        await stub.ListMethods(catalog_pb2.ListMethodsRequest())


async def test_a_replaced_authority_decides_about_new_clients(tmp_path: Path) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    async with running_front(access=old.access(mutual=True)) as front:
        assert await answers(front.address, old.client("pacs.example"))
        new.authorities()
        assert not await answers(front.address, old.client("pacs.example"))
        assert await answers(front.address, new.client("pacs.example", roots=old.pem))


async def test_files_that_do_not_fit_never_replace_those_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    access = authority.access()
    assert access.tls_cert is not None and access.tls_key is not None
    good_cert, good_key = access.tls_cert.read_bytes(), access.tls_key.read_bytes()
    elsewhere = Authority(folder(tmp_path, "elsewhere"))
    other_cert, other_key = (path.read_bytes() for path in elsewhere.server())
    async with running_front(access=access) as front:
        for cert, key in ((other_cert, good_key), (good_cert, b"half a k"), (b"", good_key)):
            replace(access.tls_cert, cert)
            replace(access.tls_key, key)
            assert await answers(front.address, authority.client())
        access.tls_cert.unlink()
        assert await answers(front.address, authority.client())
        authority.server(expired=True)
        assert await answers(front.address, authority.client())
        replace(access.tls_cert, other_cert)
        replace(access.tls_key, other_key)
        assert await answers(front.address, elsewhere.client())
    assert "tls_files_refused_former_ones_stay" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_files_that_cannot_be_used_refuse_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    access = authority.access(mutual=True)
    Certificates(access)
    broken = replace(tmp_path / "broken.pem", b"-----BEGIN CERTIFICATE-----\n")
    for wrong, told in (
        (changed(access, tls_cert=broken), "--tls-cert"),
        (changed(access, tls_key=broken), "--tls-key"),
        (changed(access, tls_client_ca=broken), "--tls-client-ca"),
        (changed(access, tls_cert=tmp_path / "nothing"), "--tls-cert"),
        (changed(access, tls_key=Authority(folder(tmp_path, "other")).server()[1]), "not the key"),
    ):
        with pytest.raises(AccessRefused, match=told):
            Certificates(wrong)
    authority.server(expired=True)
    with pytest.raises(AccessRefused, match="expired"):
        Certificates(access)


async def test_a_secret_that_is_swapped_behind_a_link_is_seen(tmp_path: Path) -> None:
    """As Kubernetes renews a mounted secret: ..data points to a folder, and tls.crt into ..data."""
    first, second = Authority(folder(tmp_path, "..first")), Authority(folder(tmp_path, "..second"))
    for each in (first, second):
        each.server()
    (tmp_path / "..data").symlink_to("..first")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    access = Access(tls_cert=tmp_path / "tls.crt", tls_key=tmp_path / "tls.key")
    async with running_front(access=access) as front:
        assert await answers(front.address, first.client())
        (tmp_path / "..new").symlink_to("..second")
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert await answers(front.address, second.client())
        assert not await answers(front.address, first.client())
