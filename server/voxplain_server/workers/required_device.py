"""Whether the device that the operator named is there, asked before anything is checked or served on it.

Light: the front imports it, so torch and onnxruntime are imported by the process that it starts and not from here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection
from typing import Literal

from voxplain_server.workers.process import worker_environment

_LACKS = {
    "torch": "this PyTorch is a build without CUDA; install its CUDA build",
    "device": "PyTorch finds no CUDA device; check the driver, and what the container is given",
    "onnxruntime": "this ONNX Runtime is a build without CUDA; install onnxruntime-gpu[cuda,cudnn]",
}
_UNKNOWN = "looking for a CUDA device ended the process that did; check the driver and the installed libraries of CUDA"


class DeviceMissing(RuntimeError):
    """What was named to compute on is not there; the message names the argument and the remedy."""


async def require_device(device: Literal["cpu", "cuda"]) -> None:
    """Look for the device in a process of its own.

    Raises:
        DeviceMissing: it is not there.
    """
    if device == "cpu":
        return
    command = [sys.executable, "-P", "-m", __name__]
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    # As a worker has it: without the server's own variables, which may hold secrets.
    own = worker_environment(1, os.environ)
    asked = await asyncio.create_subprocess_exec(*command, env=own, stdin=nothing, stdout=pipe, stderr=nothing)
    said, _ = await asked.communicate()
    lack = said.decode("ascii", "replace").strip()
    if asked.returncode != 0 or lack:
        raise DeviceMissing(f"--device cuda: {_LACKS.get(lack, _UNKNOWN)}, or start with --device cpu")


def find_lack(*, cuda: str | None, devices: int, providers: Collection[str]) -> str:
    """What is missing of CUDA; empty where nothing is.

    Args:
        cuda: version that PyTorch was built for.
        devices: that PyTorch finds.
        providers: of ONNX Runtime.
    """
    if cuda is None:
        return "torch"
    if devices == 0:
        return "device"
    return "" if "CUDAExecutionProvider" in providers else "onnxruntime"


def main() -> None:
    """Print what is missing, for `require_device`."""
    import onnxruntime
    import torch

    lack = find_lack(
        cuda=torch.version.cuda, devices=torch.cuda.device_count(), providers=onnxruntime.get_available_providers()
    )
    sys.stdout.write(lack)


if __name__ == "__main__":
    main()
