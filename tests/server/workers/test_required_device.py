"""A device that is not there is told of at the start, in words, and not by workers that die."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from voxplain_server.workers.required_device import DeviceMissing, find_lack, require_device

CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("cuda", "devices", "providers", "lack"),
    [
        (None, 0, CUDA, "torch"),
        ("13.0", 0, CUDA, "device"),
        ("13.0", 1, ("CPUExecutionProvider",), "onnxruntime"),
        ("13.0", 1, CUDA, ""),
    ],
)
def test_the_first_thing_that_is_missing_is_named(
    cuda: str | None, devices: int, providers: tuple[str, ...], lack: str
) -> None:
    assert find_lack(cuda=cuda, devices=devices, providers=providers) == lack


async def test_a_processor_is_always_there() -> None:
    await require_device("cpu")


async def test_a_gpu_that_is_not_there_is_refused_with_what_to_do() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        await require_device("cuda")
        return
    with pytest.raises(DeviceMissing, match=r"^--device cuda: .*CUDA.*; .*, or start with --device cpu$"):
        await require_device("cuda")


def test_a_server_told_to_use_a_gpu_that_is_not_there_ends_before_it_checks_a_model(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    ports = [part for name in ("port", "health-port", "metrics-port") for part in (f"--{name}", "0")]
    command = [sys.executable, "-m", "voxplain_server", "--models", str(tmp_path), *ports, "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("voxplain-server: --device cuda: ")
    assert done.stdout == ""
