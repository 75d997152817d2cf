"""Importing the client costs a platform nothing that it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnxruntime", "onnx", "captum", "matplotlib", "nibabel", "rich", "scipy", "skimage", "voxplain_server")


@pytest.mark.parametrize("module", ["voxplain_client", "voxplain_client.command.main"])
def test_importing_the_client_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))".replace(f"{HEAVY!r}", f"set({HEAVY!r})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
