"""What the client's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from voxplain.volume import Geometry, Volume
from voxplain_client.retry_policy import RetryPolicy

from tests.client.contract_server import MODALITIES, ContractServer

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -8], [0, 0, 3, -12], [0, 0, 0, 1]])


@pytest.fixture
def server() -> Iterator[ContractServer]:
    """A server that answers."""
    with ContractServer() as running:
        yield running


@pytest.fixture
def volumes() -> dict[str, Volume]:
    """One small case."""
    rng = np.random.default_rng(7)
    geometry = Geometry(shape=(9, 8, 7), affine=AFFINE)
    return {name: Volume(geometry, rng.normal(size=(9, 8, 7)).astype(np.float32)) for name in MODALITIES}


@pytest.fixture
def hasty() -> RetryPolicy:
    """A policy that does not wait."""
    return RetryPolicy(first_wait_s=0.0, longest_wait_s=0.0)
