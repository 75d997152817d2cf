"""Every export is made once per run of the tests."""

import pathlib
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.server.graph.exporting import export
from tests.server.graph.networks import NETWORKS, SWIN_UNETR

Exported = Callable[..., pathlib.Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported(name, dynamo=..., folded=None)` is the path of that network's ONNX file."""
    folder = tmp_path_factory.mktemp("exports")
    networks = NETWORKS | {"swin-unetr": SWIN_UNETR}
    made: dict[tuple[str, bool, bool | None], pathlib.Path] = {}

    def find(name: str, *, dynamo: bool, folded: bool | None = None) -> pathlib.Path:
        key = (name, dynamo, folded)
        if key not in made:
            made[key] = export(networks[name], dynamo, folded, folder / f"{name}-{dynamo}-{folded}.onnx")
        return made[key]

    return find


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share two cores with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
