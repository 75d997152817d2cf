"""The command and both clients against a real server with mutual TLS, tokens and a policy."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from voxplain.errors import PermissionDenied, ServerUnavailable, Unauthenticated
from voxplain.volume import Geometry, Volume
from voxplain_client import Access, AsyncClient, Client, RetryPolicy
from voxplain_client.command.main import main

from tests.bundles import TinyBundle, early_fusion_classes
from tests.server.service.authority import Authority, replace
from tests.server.service.tokens import AUDIENCE, EC_KEY, ISSUER, public_jwk, token, write_keys
from tests.serving import RunningServer

nibabel: Any = importlib.import_module("nibabel")


@dataclass(frozen=True)
class Protected:
    """A running server, who vouches for it, and files of a client that may do everything."""

    server: RunningServer
    authority: Authority
    access: Access
    bundle: TinyBundle
    folder: Path

    @property
    def options(self) -> list[str]:
        """Those of the command."""
        files = {"ca": self.access.ca, "cert": self.access.cert, "key": self.access.key, "token-file": self.access.token_file}
        told = [part for name, path in files.items() for part in (f"--{name}", str(path))]
        return ["--server", self.server.address, *told]


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    """One server for all tests of this file."""
    folder = tmp_path_factory.mktemp("protected")
    bundle = early_fusion_classes(folder / "models", modalities=2)
    authority = Authority(folder)
    cert, key = authority.server()
    keys = write_keys(folder / "jwks.json", public_jwk(EC_KEY, "ec"))
    arguments = ["--threads-per-worker", "1", "--engine", "onnxruntime", "--tls-cert", str(cert), "--tls-key", str(key)]
    arguments += ["--tls-client-ca", str(authority.authorities()), "--token-keys", str(keys)]
    arguments += ["--token-issuer", ISSUER, "--token-audience", AUDIENCE]
    leaf = authority.made.issue_cert("pacs.example")
    mine = Access(
        ca=folder / "ca.crt",
        cert=replace(folder / "client.crt", b"".join(each.bytes() for each in leaf.cert_chain_pems)),
        key=replace(folder / "client.key", leaf.private_key_pem.bytes()),
        token_file=replace(folder / "token", token(sub="dr-planted-name").encode()),
    )
    with RunningServer(bundle.models, arguments) as server:
        yield Protected(server, authority, mine, bundle, folder)


def with_token(protected: Protected, text: str) -> Access:
    path = replace(protected.folder / "other-token", text.encode())
    given = protected.access
    return Access(ca=given.ca, cert=given.cert, key=given.key, token_file=path)


def volumes(bundle: TinyBundle) -> dict[str, Volume]:
    return {name: Volume(Geometry(voxels.shape, bundle.affine), voxels) for name, voxels in bundle.volumes().items()}


def test_the_command_explains_over_mutual_tls_with_a_token(
    protected: Protected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: list[str] = []
    for name, voxels in protected.bundle.volumes().items():
        nibabel.save(nibabel.Nifti1Image(voxels, protected.bundle.affine), tmp_path / f"{name}.nii.gz")
        files += ["--volume", f"{name}={tmp_path / f'{name}.nii.gz'}"]
    asked = ["--model", protected.bundle.name, "--method", "gradient", "--out", str(tmp_path / "out")]
    assert main(["explain", *protected.options, *files, *asked]) == 0
    assert (tmp_path / "out" / "record.json").exists()
    for command in (["models"], ["methods"], ["describe", protected.bundle.name]):
        assert main([*command, *protected.options]) == 0
    capsys.readouterr()


async def test_the_async_client_does_so_too(protected: Protected) -> None:
    async with AsyncClient(protected.server.address, access=protected.access) as client:
        assert [model.name for model in await client.models()] == [protected.bundle.name]
        explanation = client.explain(
            model=protected.bundle.name, volumes=volumes(protected.bundle), methods=["gradient"], timeout_s=60
        )
        assert (await explanation.result()).maps["gradient"]


def test_what_is_wrong_with_a_token_is_told_once_and_never_tried_again(protected: Protected) -> None:
    case = volumes(protected.bundle)
    for text, reason in ((token(exp=time.time() - 600), "TOKEN_EXPIRED"), (token(aud="other"), "TOKEN_INVALID")):
        with Client(protected.server.address, access=with_token(protected, text)) as client:
            with pytest.raises(Unauthenticated) as refused:
                client.explain(model=protected.bundle.name, volumes=case, methods=["gradient"], timeout_s=30).result()
            assert refused.value.reason == reason
    with (
        Client(protected.server.address, access=with_token(protected, token(scope="voxplain.catalog"))) as client,
        pytest.raises(PermissionDenied) as denied,
    ):
        client.explain(model=protected.bundle.name, volumes=case, methods=["gradient"], timeout_s=30).result()
    assert denied.value.reason == "METHOD_DENIED"


def test_a_server_that_is_not_trusted_is_told_apart_from_one_that_is_not_there(protected: Protected, tmp_path: Path) -> None:
    strange = Authority(tmp_path).authorities()
    with (
        Client(protected.server.address, access=Access(ca=strange)) as client,
        pytest.raises(Unauthenticated) as refused,
    ):
        client.models()
    assert refused.value.reason == "TLS_FAILED"
    with (
        Client(protected.server.address, access=Access(ca=protected.access.ca)) as client,
        pytest.raises(ServerUnavailable, match="TLS"),
    ):
        client.models()
    with Client(protected.server.address, policy=RetryPolicy(attempts=0)) as client, pytest.raises(ServerUnavailable):
        client.models()


def test_neither_tokens_nor_subjects_reach_the_log(protected: Protected) -> None:
    with Client(protected.server.address, access=protected.access) as client:
        client.models()
    log = protected.server.log
    assert "TOKEN_EXPIRED" in log
    assert not any(word in log for word in ("eyJ", "Bearer", "planted", "BEGIN", "pacs.example"))
