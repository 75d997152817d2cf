"""How the work of a call is cut: fixed before the first evaluation, so that the same request gives the same bytes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_server.models.model import Model

BATCH_VOXELS = 2**22
"""Voxels of all inputs together in one forward pass; beyond this a larger batch gains nothing on a CPU."""
MAX_BATCH = 16
BLOCK_VOXELS = 2**26
"""Voxels that go through the model in one block: with the networks of this field well under two seconds on two cores."""
MAX_BATCHES_IN_BLOCK = 16
INCREMENTAL_BLOCK = 512
"""Evaluations in one block of an engine that recomputes what changes: it computes equal boxes together, and a small block has
few of them. Measured at 4 x 128^3: a window takes eight times as long in blocks of 64, nothing less in blocks of 1024."""
INCREMENTAL_DEADLINE_BLOCK = 64
"""The same where a deadline is near: about as long as one whole pass."""
REMOTE_ROUNDS_IN_BLOCK = 4
"""Times that the requests in flight of a remote model are answered in one block."""
MAX_PINNED_BATCH = 1024
PINNED_BATCH_VOXELS = 4 * BATCH_VOXELS
"""As BATCH_VOXELS, for a batch that the spec pins: a request must not be able to exhaust the memory."""
MAX_PINNED_BLOCK = 1_000_000


def count_voxels(model: Model, tensors: Sequence[tensor_pb2.Tensor]) -> int:
    """Voxels of one case on the model's grid, all modalities and copies of channels together.

    Axes of any size are taken from the client's volumes.
    """
    sent = {tensor.modality: tuple(tensor.shape) for tensor in tensors if tensor.role == tensor_pb2.TENSOR_ROLE_VOLUME}
    copies = {name: given.repeat for given in model.inputs for name in given.modalities}
    total = 0
    for modality in model.modalities:
        shape = sent.get(modality.name, ())
        axes = [
            axis if axis is not None else (shape[index] if index < len(shape) else 1)
            for index, axis in enumerate(modality.shape)
        ]
        total += math.prod(axes) * copies.get(modality.name, 1)
    return max(total, 1)


def resolve_execution(
    model: Model,
    spec: explain_pb2.ExplainSpec,
    *,
    engine: str,
    threads: int,
    engines: Collection[str] = (),
) -> explain_pb2.Execution:
    """Batch and block size for a call: a pure function of the model, the case's voxels and what the spec pins.

    Threads are those of this server, whatever the spec pins: see `differences`.

    Args:
        model: the model.
        spec: what is asked.
        engine: the one that this server prefers for the model.
        threads: of one worker.
        engines: all that can evaluate the model here; the spec may pin any of them.
    """
    if spec.execution.engine in engines:
        engine = spec.execution.engine
    voxels = count_voxels(model, spec.tensors)
    batch, block = _whole_passes(model, voxels)
    if is_incremental(engine):
        block = max(block, INCREMENTAL_BLOCK)
    if spec.budget.HasField("max_evaluations"):
        # Whole blocks are computed: a small budget needs small ones.
        block = min(block, max(spec.budget.max_evaluations, 1))
    if spec.budget.HasField("soft_deadline"):
        # What a block has not finished by then is lost.
        block = min(block, INCREMENTAL_DEADLINE_BLOCK if is_incremental(engine) else batch * _passes_at_once(model))
    if spec.execution.batch_size and model.batched:
        batch = min(spec.execution.batch_size, MAX_PINNED_BATCH, max(PINNED_BATCH_VOXELS // voxels, 1))
        batch = batch if model.remote is None else model.remote.batch_of(batch)
    if spec.execution.block_size:
        block = min(spec.execution.block_size, MAX_PINNED_BLOCK)
    return explain_pb2.Execution(engine=engine, threads_per_worker=threads, batch_size=batch, block_size=block)


def block_of_plan(model: Model, spec: explain_pb2.ExplainSpec, *, most: int, share: float) -> int:
    """Evaluations in a block of one plan, so that blocks take about the same time whatever a perturbation changes.

    Args:
        model: the model.
        spec: what is asked.
        most: Execution.block_size.
        share: operations of one evaluation over those of a whole pass.
    """
    batch, block = _whole_passes(model, count_voxels(model, spec.tensors))
    if spec.budget.HasField("soft_deadline"):
        block = batch
    return min(most, max(block, int(block / max(share, 1 / INCREMENTAL_BLOCK))))


def is_incremental(engine: str) -> bool:
    """Whether an engine of this name recomputes only what a perturbation changes."""
    return engine.startswith("incremental-")


def differences(pinned: explain_pb2.Execution, resolved: explain_pb2.Execution) -> list[explain_pb2.Caution]:
    """A caution EXECUTION_DIFFERS where the server cannot do as the spec pins; empty where it can."""
    names = ("engine", "threads_per_worker", "batch_size", "block_size")
    differing = [name for name in names if getattr(pinned, name) and getattr(pinned, name) != getattr(resolved, name)]
    if not differing:
        return []
    told = f"{', '.join(differing)} cannot be as pinned here: maps agree with the earlier ones within the parity bound only"
    return [explain_pb2.Caution(code="EXECUTION_DIFFERS", description=told)]


def _whole_passes(model: Model, voxels: int) -> tuple[int, int]:
    """Batch and block size where every evaluation is a whole pass."""
    batch = min(max(BATCH_VOXELS // voxels, 1), MAX_BATCH) if model.batched else 1
    if model.remote is None:
        return batch, batch * min(max(BLOCK_VOXELS // (voxels * batch), 1), MAX_BATCHES_IN_BLOCK)
    # The end of a block waits for its last requests: few enough ends leave the other server at work.
    batch = model.remote.batch_of(batch) if model.batched else 1
    return batch, batch * _passes_at_once(model) * REMOTE_ROUNDS_IN_BLOCK


def _passes_at_once(model: Model) -> int:
    return 1 if model.remote is None else model.remote.requests_in_flight
