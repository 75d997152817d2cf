"""Full forward passes by another server, over the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from voxplain.errors import ServerUnavailable, UnsupportedByModel, VoxplainError
from voxplain.inference import open_inference_pb2, open_inference_pb2_grpc

from voxplain_server.engines.batch_buffer import BatchBuffer
from voxplain_server.engines.batched_scores import written_batches
from voxplain_server.engines.engine import Cancelled
from voxplain_server.engines.input_assembly import assemble
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.engines.remote_calls import RemoteCalls
from voxplain_server.engines.remote_tensor import read_output, write_request
from voxplain_server.engines.retry_budget import RetryBudget
from voxplain_server.models.case import Case
from voxplain_server.models.model import Model, OutputKind
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.remote_access import RemoteAccess
from voxplain_server.models.remote_model import RemoteModel
from voxplain_server.models.remote_signature import ask_metadata, digest_reported
from voxplain_server.models.score import Score

REMOTE = "remote"


class RemoteEngine:
    """Evaluates perturbed cases by another server (an Evaluator).

    The first question of a job opens a channel and looks whether the server still tells the same of the model as when the
    bundle was checked; `forget` closes it. Answers of another version than the first one's are refused: a map must not be
    made of two models.

    Args:
        model: the bundle's description of it; Model.remote is set.
        access: which servers may be asked, and how.
    """

    def __init__(self, model: Model, *, access: RemoteAccess) -> None:
        if model.remote is None:
            raise ValueError("the model is not a remote one")
        self._model = model
        self._remote: RemoteModel = model.remote
        self._access = access
        self._dtypes = [spec.dtype for spec in model.inputs]
        self._channel: grpc.Channel | None = None
        self._calls: RemoteCalls | None = None
        self._answering_version: str | None = None
        self._interrupted = False

    @property
    def name(self) -> str:
        """Stands in plans and records: "remote"."""
        return REMOTE

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """The raw answer on the unperturbed case.

        Raises:
            voxplain.errors.ServerUnavailable: the server does not answer: REMOTE_UNAVAILABLE, REMOTE_DEADLINE or
                REMOTE_RETRY_BUDGET_SPENT.
            voxplain.errors.UnsupportedByModel: REMOTE_REFUSED, REMOTE_ANSWER_INVALID, MODEL_CHANGED.
        """
        self._interrupted = False
        return self._base(case, cancelled=lambda: False)

    def scores(
        self,
        case: Case,
        score: Score,
        perturbations: Sequence[Perturbation],
        *,
        batch_size: int,
        cancelled: Cancelled,
    ) -> npt.NDArray[np.float64]:
        """As Evaluator.scores; raises what `answer` raises. Memory: one batch, and one request for each in flight."""
        self._interrupted = False
        size = self._remote.batch_of(batch_size) if self._model.batched else 1
        rows = BatchBuffer(case, batch_size=size, dtypes=self._dtypes)
        scores: npt.NDArray[np.float64] = np.full(len(perturbations), np.nan)
        unchanged: list[int] = []

        def requests() -> Iterator[tuple[list[int], open_inference_pb2.ModelInferRequest]]:
            for indices in written_batches(case, perturbations, rows=rows, batch_size=size, unchanged=unchanged):
                yield indices, self._request(rows.inputs)

        for indices, response in self._open().answers(requests(), cancelled=lambda: self._interrupted or cancelled()):
            scores[indices] = score.of(self._read(response, case, rows=size))[: len(indices)]
        if unchanged:
            scores[unchanged] = score.of(self._base(case, cancelled=cancelled))[0]
        return scores

    def interrupt(self) -> None:
        """Stop waiting for answers, from another thread: `scores` or `answer` raises Cancelled."""
        self._interrupted = True

    def forget(self) -> None:
        """Close the channel; the next job has a retry budget of its own and reads certificates anew."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._calls = self._answering_version = None

    def _base(self, case: Case, *, cancelled: Cancelled) -> npt.NDArray[np.float32]:
        size = self._remote.batch_of(1) if self._model.batched else 1
        inputs = assemble(case.model, case.volumes, batch=size, dtypes=self._dtypes)
        once = iter([(None, self._request(inputs))])
        ((_, response),) = self._open().answers(once, cancelled=lambda: self._interrupted or cancelled())
        return self._read(response, case, rows=size)[:1]

    def _open(self) -> RemoteCalls:
        if self._calls is not None:
            return self._calls
        remote = self._remote
        try:
            self._channel = self._access.open_channel(remote.endpoint, max_response_bytes=remote.max_response_bytes)
            told = ask_metadata(self._channel, remote.name, remote.version)
        except ModelRefused as refused:
            self.forget()
            raise as_fault(refused) from None
        if digest_reported(told) != remote.reported:
            self.forget()
            raise _changed()
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._calls = RemoteCalls(
            stub.ModelInfer.future,
            in_flight=remote.requests_in_flight,
            seconds=remote.request_seconds,
            budget=RetryBudget(share=remote.retry_share, floor=remote.retry_floor),
        )
        return self._calls

    def _request(self, inputs: Sequence[npt.NDArray[Any]]) -> open_inference_pb2.ModelInferRequest:
        remote = self._remote
        tensors = dict(zip(remote.inputs, inputs, strict=True))
        return write_request(remote.name, remote.version, tensors, output=remote.output)

    def _read(self, response: open_inference_pb2.ModelInferResponse, case: Case, *, rows: int) -> npt.NDArray[np.float32]:
        """The answers, batch axis first. Raises UnsupportedByModel: REMOTE_ANSWER_INVALID or MODEL_CHANGED."""
        if self._answering_version is None:
            self._answering_version = response.model_version
        if response.model_version != self._answering_version:
            raise _changed()
        answers = read_output(response, self._remote.output)
        if not self._model.output.has_batch_axis:
            answers = answers[None]
        if not self._fits(answers.shape, case, rows=rows):
            told = (
                "the remote server's answer does not have the shape that the bundle states, one set of numbers for each case; "
                "correct network_data_format.outputs, or voxplain.remote.batch_size where it answers one case at a time"
            )
            raise UnsupportedByModel("REMOTE_ANSWER_INVALID", told)
        return answers

    def _fits(self, shape: tuple[int, ...], case: Case, *, rows: int) -> bool:
        output = self._model.output
        lone = output.kind in (OutputKind.SIGMOID, OutputKind.SCALAR)
        if output.kind is OutputKind.SEGMENTATION:
            channels = (1, 2) if len(output.classes) == 2 else (len(output.classes),)
            grid = case.volumes[0].shape
            return shape in [(rows, each, *grid) for each in channels]
        numbers = int(np.prod(shape[1:], dtype=np.int64))
        return shape[:1] == (rows,) and numbers == (1 if lone else len(output.classes))


def as_fault(refused: ModelRefused) -> VoxplainError:
    """A refusal as the fault of a call: an outage may pass, everything else is the bundle's or the operator's to mend."""
    kind = ServerUnavailable if refused.reason == "REMOTE_UNAVAILABLE" else UnsupportedByModel
    return kind(refused.reason, f"{refused.message[:1].lower()}{refused.message[1:].rstrip('.')}")


def _changed() -> UnsupportedByModel:
    return UnsupportedByModel(
        "MODEL_CHANGED",
        "the remote server tells another model than when this server checked it; ask again when it has looked anew",
        field="model",
    )
