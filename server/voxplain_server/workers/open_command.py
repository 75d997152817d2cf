"""The command that opens a call on a worker."""

from __future__ import annotations

from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.description import model_to_json
from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.job import Job


def open_command(
    job: Job, entry: CatalogEntry, execution: explain_pb2.Execution, *, lead: bool, max_loaded_models: int
) -> worker_pb2.Open:
    """Tell a worker all it needs to know of a job; the descriptor of the job's memory goes with it.

    Args:
        job: what is asked.
        entry: the model.
        execution: how the work is cut.
        lead: whether the worker leads.
        max_loaded_models: models that it keeps loaded.
    """
    spec = explain_pb2.ExplainSpec()
    spec.CopyFrom(job.spec)
    spec.ClearField("checkpoint")
    return worker_pb2.Open(
        spec=spec,
        tensors=[worker_pb2.Place(header=each.header, offset=each.offset, size=each.size) for each in job.tensors],
        model_json=model_to_json(entry.model, entry.traits),
        execution=execution,
        lead=lead,
        max_loaded_models=max_loaded_models,
    )
