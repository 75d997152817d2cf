"""What the READMEs show in Python runs as it stands there, against a real server; only the address and a file name differ."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import trustme

from tests.bundles import early_fusion_classes
from tests.serving import RunningServer

ROOT = Path(__file__).parents[2]
SHAPE = (12, 14, 10)


def snippets(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    early_fusion_classes(models, name="my-net", modalities=2, shape=SHAPE)
    with RunningServer(models) as server:
        yield server.address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader of a README would stand: with a case, a certificate and a token."""
    draws = np.random.default_rng(0)
    for name in ("t1", "flair"):
        voxels = draws.random(SHAPE, dtype=np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / f"{name}.nii.gz")  # type: ignore[no-untyped-call]
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine = authority.issue_cert("me")
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "me.pem"))
    mine.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    (tmp_path / "token").write_text("secret")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def run(snippet: str, address: str, names: dict[str, Any]) -> None:
    """Run a block, `await` on its top level too."""
    text = snippet.replace("localhost:50051", address)
    # The tiny model reads t1 and t1c.
    text = text.replace('"flair": flair', '"t1c": flair').replace('("t1", "flair")', '("t1", "t1c")')
    code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = FunctionType(code, names)()
    if inspect.isawaitable(waiting):
        await waiting


async def test_the_readme_explains_a_case(address: str, folder: Path) -> None:
    (snippet,) = snippets("README.md")
    names: dict[str, Any] = {}
    await run(snippet, address, names)
    assert names["maps"].shape == SHAPE
    assert np.isfinite(names["maps"]).all()


async def test_the_clients_readme_runs_from_top_to_bottom(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "flair.nii.gz").rename(folder / "t1c.nii.gz")
    names: dict[str, Any] = {"voxels": np.zeros(SHAPE, np.float32)}
    blocks = snippets("client/README.md")
    assert len(blocks) == 4
    for block in blocks:
        await run(block, address, names)
    assert str(SHAPE) in capsys.readouterr().out
    assert names["t1"].geometry.shape == SHAPE
    assert set(names["result"].maps["occlusion"]) == {"t1", "t1c"}
    names["client"].close()
