"""How a client protects a connection, and itself from sending a token where others can read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxplain.errors import InvalidSpec
from voxplain_client import Access, AsyncClient, Client
from voxplain_client.access import is_this_host
from voxplain_client.command.main import main
from voxplain_client.connection import plaintext_options


def token_in(folder: Path, content: str = "abc.def.ghi\n") -> Path:
    path = folder / "token"
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:1", True),
        ("[::1]:50051", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("unix:/run/voxplain.sock", True),
        ("voxplain.example:50051", False),
        ("10.0.0.1:50051", False),
        ("[fd00::1]:50051", False),
        ("localhost.example:50051", False),
        ("127.0.0.1.example:50051", False),
        ("dns:///127.0.0.1.example:50051", False),
    ],
)
def test_which_addresses_are_this_host(address: str, here: bool) -> None:
    assert is_this_host(address) is here
    assert (("grpc.enable_http_proxy", 0) in plaintext_options(address)) is here


def test_a_token_never_leaves_the_host_in_plaintext(tmp_path: Path) -> None:
    access = Access(token_file=token_in(tmp_path))
    with pytest.raises(InvalidSpec) as refused:
        Client("voxplain.example:50051", access=access)
    assert (refused.value.reason, refused.value.field) == ("ACCESS_INVALID", "access.token_file")
    Client("127.0.0.1:50051", access=access).close()
    Client("voxplain.example:50051", access=Access(tls=True, token_file=access.token_file)).close()


async def test_neither_does_that_of_an_async_client(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec):
        AsyncClient("voxplain.example:50051", access=Access(token_file=token_in(tmp_path)))


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "b\u00e4r", "a\0b"])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidSpec, match="one bearer token") as refused:
        Access(token_file=token_in(tmp_path, content)).metadata()
    assert not content or content not in str(refused.value)


def test_a_renewed_token_is_used(tmp_path: Path) -> None:
    access = Access(token_file=token_in(tmp_path))
    assert access.metadata() == (("authorization", "Bearer abc.def.ghi"),)
    token_in(tmp_path, "new")
    assert access.metadata() == (("authorization", "Bearer new"),)


def test_files_that_do_not_go_together_are_named_as_the_command_knows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--server", "127.0.0.1:1", "--cert", str(tmp_path / "cert")]) == 2
    assert "--cert: a client certificate and its key go together" in capsys.readouterr().err
    assert main(["models", "--server", "127.0.0.1:1", "--ca", str(tmp_path / "none")]) == 2
    assert "--ca: the file cannot be read" in capsys.readouterr().err
    assert main(["models", "--server", "far.example:1", "--token-file", str(token_in(tmp_path))]) == 2
    assert "--token-file: a token would leave this host in plaintext" in capsys.readouterr().err
