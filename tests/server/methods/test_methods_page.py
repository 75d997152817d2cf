"""The table of docs/methods.md against the methods that it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from voxplain_server.methods import all_methods

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
SHAPES = ((128, 128, 128),) * 4


def rows() -> dict[str, str]:
    """The last column by method."""
    cells = [line.strip("| \n").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {row[0].strip(): row[-1].strip() for row in cells if row[0].strip() in all_methods()}


def test_every_method_stands_in_the_table() -> None:
    assert list(rows()) and set(rows()) == set(all_methods())


@pytest.mark.parametrize("name", [name for name, passes in rows().items() if re.fullmatch(r"(about )?[\d,]+", passes)])
def test_passes_are_as_the_table_says(name: str) -> None:
    method, passes = all_methods()[name], rows()[name]
    counted = method.count_evaluations(method.defaults(None), SHAPES)
    stated = int(passes.removeprefix("about ").replace(",", ""))
    assert counted == (pytest.approx(stated, rel=0.01) if passes.startswith("about") else stated)
