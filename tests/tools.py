"""Programs that tests need and pip does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """The path of a program. Without it the test is skipped, or fails where the variable VOXPLAIN_TOOLS names it, as in CI."""
    found = shutil.which(name)
    if found is not None:
        return found
    told = f"{name} is not installed"
    if name in os.environ.get("VOXPLAIN_TOOLS", "").split():
        pytest.fail(told)
    pytest.skip(told)
