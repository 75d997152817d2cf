"""Triton's own client, unchanged, against voxplain's service port; its answers are held against ONNX Runtime's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from tests.bundles import TinyBundle, early_fusion_classes, fixed_batch, late_fusion, segmentation
from tests.neighbours.environment import Environment
from tests.neighbours.neighbour import Neighbour, Outcome
from tests.serving import RunningServer

ENVIRONMENT = Environment("triton", ("tritonclient[grpc]==2.73.0",))
LARGE = (64, 64, 64)
"""Voxels of the model whose case is larger than gRPC's default message: four modalities take 4 MiB."""


def checks(scratch: Path) -> Iterator[Outcome]:
    """The client in its environment, once within the default limits and once with larger messages allowed."""
    ENVIRONMENT.make()
    models = scratch / "models"
    small = [early_fusion_classes(models, softmax=True), fixed_batch(models), late_fusion(models), segmentation(models)]
    large = early_fusion_classes(models, name="tiny-large", shape=LARGE)
    cases = {bundle.name: str(write_case(bundle, scratch, batch=1 if bundle.name == "tiny-fixed" else 3)) for bundle in small}
    big = {large.name: str(write_case(large, scratch, batch=2))}
    with RunningServer(models) as server:
        yield from ENVIRONMENT.check("triton_client.py", server=server.address, cases=cases, too_large=big)
    with RunningServer(models, ["--max-inference-bytes", str(64 << 20)]) as server:
        yield from ENVIRONMENT.check("triton_client.py", server=server.address, cases=big, too_large={})


def write_case(bundle: TinyBundle, folder: Path, *, batch: int) -> Path:
    """Random tensors for a model and what ONNX Runtime answers, as one .npz; returns its path."""
    session = onnxruntime.InferenceSession(str(bundle.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    draws = np.random.default_rng(0)
    feeds = {each.name: draws.standard_normal([batch, *each.shape[1:]]).astype(np.float32) for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    answers = dict(zip(names, session.run(None, feeds), strict=True))
    path = folder / f"{bundle.name}.npz"
    facts = json.dumps({"inputs": list(feeds), "outputs": names, "version": bundle.version})
    arrays = {f"in.{name}": array for name, array in feeds.items()} | {f"out.{name}": array for name, array in answers.items()}
    np.savez(path, allow_pickle=False, facts=np.array(facts), **arrays)
    return path


TRITON = Neighbour("tritonclient", checks)
