"""Triton's own client, unchanged, against voxplain's service port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.neighbours.environment import Environment
from tests.neighbours.neighbour import Neighbour, Outcome

ENVIRONMENT = Environment("triton", ("tritonclient[grpc]==2.73.0",))


def checks(scratch: Path) -> Iterator[Outcome]:
    """The client can be installed; what it gets from the server comes with the server's side of the protocol."""
    ENVIRONMENT.make()
    yield from ENVIRONMENT.check("triton_client.py", scratch=str(scratch))


TRITON = Neighbour("tritonclient", checks)
