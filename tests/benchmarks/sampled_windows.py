"""A uniform sample of the default occlusion's windows, as a worker evaluates them: blocks drawn at random, or runs of them.

    python -m tests.benchmarks.sampled_windows SUBJECT EDGE {zero|noise} BLOCKS LENGTH ENGINE

Prints one JSON line: seconds for each window of the whole grid, those counted in that change nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2
from voxplain_server.methods import all_methods
from voxplain_server.methods.method import PerturbationMethod, Setting
from voxplain_server.methods.resolve import resolve_method
from voxplain_server.models.bundle import find_bundles
from voxplain_server.models.case_building import ClientTensor, build_case
from voxplain_server.models.loading import load_model
from voxplain_server.models.targeting import resolve_target
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.execution import resolve_execution
from voxplain_server.workers.held_model import HeldModel
from voxplain_server.workers.process import worker_environment

from tests.benchmarks.subject import CLASS_INDEX, Subject
from tests.benchmarks.subjects import SUBJECTS

THREADS = 2
COMPARED = 8
SCORE_SPACINGS = 32
"""Differences of scores below so many float32 spacings of the score are rounding."""


WHOLE = 0
"""As the length of a run: all of its block."""


def sample_windows(subject: str, edge: int, fill: str, *, blocks: int, engine: str, length: int = WHOLE) -> dict[str, float]:
    """Run it in a fresh process with a worker's environment; `length` windows of each block, one after the other."""
    asked = (subject, str(edge), fill, str(blocks), str(length), engine)
    command = [sys.executable, "-m", "tests.benchmarks.sampled_windows", *asked]
    environ = worker_environment(THREADS, os.environ)
    told = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


def main() -> None:
    """Time the blocks."""
    subject, edge, fill, engine = SUBJECTS[sys.argv[1]], int(sys.argv[2]), sys.argv[3], sys.argv[6]
    blocks, length = int(sys.argv[4]), int(sys.argv[5])
    with tempfile.TemporaryDirectory() as scratch:
        subject.write_bundle(Path(scratch), edge)
        (place,) = find_bundles(Path(scratch))
        held = HeldModel(load_model(place), threads=THREADS)
    found = timed_blocks(held, subject, edge, fill=fill, blocks=blocks, length=length, engine=engine)
    sys.stdout.write(json.dumps(found) + "\n")


def timed_blocks(
    held: HeldModel, subject: Subject, edge: int, *, fill: str, blocks: int, length: int, engine: str
) -> dict[str, float]:
    """Seconds for each window of the grid, from `blocks` blocks after one that makes ready, or so long a run at random in each.

    Raises:
        ValueError: nothing in the sample changes a voxel.
    """
    evaluator = held.evaluator_named(engine)
    tensors = [_tensor(name, volume) for name, volume in subject.volumes(edge).items()]
    region = subject.region(edge)
    if region is not None:
        tensors.append(_tensor("mask", region.astype(np.uint8), role=tensor_pb2.TENSOR_ROLE_MASK))
    case = build_case(held.model, tensors, donors=False).case
    asked = explain_pb2.Target(class_ref=explain_pb2.ClassRef(index=CLASS_INDEX))
    target = resolve_target(held.model, asked, evaluator.answer(case), case.mask)
    window = method_pb2.Occlusion()
    if fill == "zero":
        window.fill.zero.SetInParent()
    resolved, _ = resolve_method(method_pb2.Method(occlusion=window), held.model)
    spec = explain_pb2.ExplainSpec(tensors=[tensor.header for tensor in tensors])
    execution = resolve_execution(held.model, spec, engine=engine, threads=THREADS, engines=(engine,))
    method = all_methods()["occlusion"]
    if not isinstance(method, PerturbationMethod):
        raise TypeError("occlusion has a plan")
    plan = method.plan(
        Setting(
            case=case,
            score=target.score,
            base_score=target.value,
            params=resolved.occlusion,
            seed=0,
            key="occlusion",
            traits=ModelTraits(has_relu=True, twin_parity=0.0),
            block_size=execution.block_size,
        )
    )
    generator = np.random.default_rng(0)
    drawn = generator.choice(len(plan.blocks), size=min(blocks + 1, len(plan.blocks)), replace=False)
    windows, changing, seconds = 0, 0, 0.0
    compared: list[int] = []
    for turn, number in enumerate(drawn):
        block = plan.blocks[int(number)]
        size = block.stop - block.start
        taken = min(length or size, size)
        start = block.start + int(generator.integers(size - taken + 1))
        chosen = [index for index in range(start, start + taken) if not plan.unchanged[index]]
        # The middle one of each block: the last block may lie where nothing changes.
        compared += chosen[len(chosen) // 2 :][:1]
        began = time.perf_counter()
        evaluator.scores(
            case,
            target.score,
            [plan.perturbation(index) for index in chosen],
            batch_size=execution.batch_size,
            cancelled=lambda: False,
        )
        if turn > 0 or len(drawn) == 1:
            seconds += time.perf_counter() - began
            windows += taken
            changing += len(chosen)
    if changing == 0:
        raise ValueError("no window of this sample changes a voxel: draw more blocks")
    few = [plan.perturbation(index) for index in compared[-COMPARED:]]
    exact, found = (
        each.scores(case, target.score, few, batch_size=1, cancelled=lambda: False) - target.score.of(each.answer(case))[0]
        for each in (held.evaluator, evaluator)
    )
    spacings = SCORE_SPACINGS * float(np.spacing(np.float32(abs(target.value))))
    gap = max(float(np.abs(found - exact).max()) - spacings, 0.0) / float(np.abs(exact).max())
    # What changes nothing costs nothing; how many of the whole grid do is counted, not sampled.
    each = seconds / changing * float(1.0 - plan.unchanged.mean())
    return {"difference": gap, "each": each, "windows": windows, "changing": changing, "grid": plan.evaluations}


def _tensor(
    name: str, voxels: np.ndarray, *, role: tensor_pb2.TensorRole.ValueType = tensor_pb2.TENSOR_ROLE_VOLUME
) -> ClientTensor:
    header = tensor_pb2.Tensor(
        id=name,
        role=role,
        modality=name if role == tensor_pb2.TENSOR_ROLE_VOLUME else "",
        data_type=tensor_pb2.DATA_TYPE_UINT8 if voxels.dtype == np.uint8 else tensor_pb2.DATA_TYPE_FLOAT32,
        shape=voxels.shape,
    )
    return ClientTensor(header, np.ascontiguousarray(voxels))


if __name__ == "__main__":
    main()
