"""The front imports nothing that computes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from voxplain.v1 import method_pb2

HEAVY = ("torch", "onnxruntime", "captum", "onnx", "skimage", "scipy", "monai", "nibabel")


@pytest.mark.parametrize("module", ["voxplain_server.app", "voxplain_server.__main__", "voxplain.wire"])
def test_importing_it_in_a_fresh_process_loads_nothing_heavy(module: str) -> None:
    script = f"import {module}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_for_every_method_loads_nothing_heavy() -> None:
    script = (
        "from voxplain_server.methods import all_methods; import sys; "
        f"print(len(all_methods()), [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    count, heavy = done.stdout.strip().split(" ", 1)
    assert int(count) == len(method_pb2.Method.DESCRIPTOR.oneofs_by_name["method"].fields)
    assert heavy == "[]"
