"""Programs that tests need and pip does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails where VOXPLAIN_TOOLS=required (CI)."""
    found = shutil.which(name)
    if found is not None:
        return found
    told = f"{name} is not installed"
    if os.environ.get("VOXPLAIN_TOOLS") == "required":
        pytest.fail(told)
    pytest.skip(told)
