"""What computes here: the processor or accelerator, and the versions of the packages."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

PACKAGES = ("voxplain", "numpy", "scipy", "scikit-image", "onnx", "onnxruntime-gpu", "onnxruntime", "torch", "captum")


def package_versions() -> dict[str, str]:
    """Versions of the packages that compute, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def device_name(device: Literal["cpu", "cuda"]) -> str:
    """The accelerator or processor, as the system names it: equal bytes are promised for equal ones only."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as lines:
            named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        named = ""
    return named or platform.machine()
