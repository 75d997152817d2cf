"""Looks at a bundle that names a remote model: lets the other server answer random cases, and measures."""

from __future__ import annotations

import time

import numpy as np
from voxplain.errors import UnsupportedByModel, VoxplainError
from voxplain.worker.v1 import worker_pb2

from voxplain_server.engines.remote_engine import REMOTE, RemoteEngine
from voxplain_server.models.case import Case
from voxplain_server.models.description import model_to_json
from voxplain_server.models.engine_choice import EngineChoice
from voxplain_server.models.model import Model
from voxplain_server.models.remote_access import RemoteAccess
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.model_description import describe_model
from voxplain_server.workers.probe_cases import PROBE_EDGES, probe_cases
from voxplain_server.workers.slic_rate import slic_rate


def check_remote_model(model: Model, *, access: RemoteAccess, threads: int) -> worker_pb2.Checked:
    """Ask the other server for its answers on random cases.

    Raises:
        voxplain.errors.VoxplainError: it cannot be served; reason and message are for the operator and for clients.
    """
    engine = RemoteEngine(model, access=access)
    try:
        case = _probe(model, engine)
        began_at = time.monotonic()
        engine.answer(case)
        seconds = time.monotonic() - began_at
    finally:
        engine.forget()
    traits = ModelTraits(
        evaluation_seconds=seconds,
        evaluation_voxels=sum(volume.size for volume in case.volumes),
        slic_seconds_per_voxel=slic_rate(threads),
        background_cases=len(model.background_cases),
        remote=True,
        engine_choice=EngineChoice(REMOTE, (REMOTE,), "another server holds the model", seconds),
    )
    return worker_pb2.Checked(model_json=model_to_json(model, traits), description=describe_model(model, traits), engine=REMOTE)


def _probe(model: Model, engine: RemoteEngine) -> Case:
    """A case that the server has answered with finite numbers."""
    fixed = all(None not in modality.shape for modality in model.modalities)
    fault: VoxplainError | None = None
    for edge in PROBE_EDGES[:1] if fixed else PROBE_EDGES:
        cases = list(probe_cases(model, edge))
        try:
            answers = [engine.answer(case) for case in cases]
        except UnsupportedByModel as refused:
            # It may read no volumes of this size; an outage ends the probe at once.
            fault = refused
            continue
        if all(np.isfinite(answer).all() for answer in answers):
            return cases[0]
        message = "The remote model answers NaN or infinity on random volumes of mean 0 and deviation 1. Mend it there."
        fault = UnsupportedByModel("ANSWER_NOT_FINITE", message)
    if fault is None:
        fault = UnsupportedByModel("PROBE_FAILED", "The remote model did not answer a random case. Correct spatial_shape.")
    raise fault
