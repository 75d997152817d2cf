"""The front imports the pool: nothing that computes may come with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnxruntime", "onnx", "captum", "skimage", "scipy")


@pytest.mark.parametrize("module", ["pool", "checking", "check_report", "catalog", "events"])
def test_the_front_half_brings_nothing_heavy(module: str) -> None:
    code = f"import sys, voxplain_server.workers.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "[]"
