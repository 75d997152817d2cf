"""What clients and operators hide in every field, header and variable comes out nowhere."""

from __future__ import annotations

from tests.stress.planted import plant
from tests.stress.row import Scale


def test_planted_secrets_come_out_nowhere() -> None:
    (row,) = plant(Scale())
    assert row.passed, row.figure
