"""One explanation over as many calls as it takes. Knows no network: the sync and the async client both drive it.

While it is not `finished`: make a call with `messages()`, hand on what `receive` makes of every message of the server, and when
the call has ended wait as `recover` says, or let its error out.
"""

from __future__ import annotations

from collections.abc import Iterator

from voxplain.errors import CheckpointRefused, ChecksumMismatch, ServerUnavailable, UnsupportedByModel, VoxplainError
from voxplain.v1 import explain_pb2
from voxplain.wire import ChunkView, decode_response

from voxplain_client.events import Event, MapReceived, Resuming
from voxplain_client.explanation_result import ExplanationResult
from voxplain_client.map_assembly import MapAssembly
from voxplain_client.request import Request
from voxplain_client.retry_policy import RetryPolicy

MapKey = tuple[str, int, tuple[str, ...]]
"""Method key, quantity, modalities."""


class Conversation:
    """What was asked, what has come, and where to go on after a fault.

    Args:
        request: what to send.
        policy: when to try again.
        keep_maps: False: maps are handed on as events and forgotten, so that memory does not grow with the methods.
    """

    def __init__(self, request: Request, *, policy: RetryPolicy, keep_maps: bool = True) -> None:
        self._request = request
        self._policy = policy
        self._keep_maps = keep_maps
        self._checkpoint = request.spec.checkpoint
        self._accepted: explain_pb2.Accepted | None = None
        self._prediction: explain_pb2.Prediction | None = None
        self._record: explain_pb2.ExplanationRecord | None = None
        self._results: dict[str, explain_pb2.MethodResult] = {}
        self._maps: dict[MapKey, MapReceived] = {}
        self._delivered: dict[MapKey, str] = {}
        self._in_call: dict[MapKey, str] = {}
        self._assembly = MapAssembly()
        self._attempt = 0
        self._advance = (0, 0)
        self._advance_at_fault = (0, 0)
        self._started_over = False

    @property
    def finished(self) -> bool:
        """Whether the record is there."""
        return self._record is not None

    def messages(self) -> Iterator[bytes]:
        """Begin a call: what to send in it."""
        self._assembly = MapAssembly()
        self._in_call = {}
        version = self._accepted.version if self._accepted is not None else ""
        return self._request.messages(checkpoint=self._checkpoint, version=version)

    def receive(self, message: bytes) -> Iterator[Event]:
        """Take one message of the server and tell what is new in it.

        Raises:
            VoxplainError: the server broke the contract, or bytes were changed on their way.
        """
        response = decode_response(message)
        if isinstance(response, ChunkView):
            received = self._assembly.add(response)
            if received is not None:
                yield from self._take_map(received)
            return
        match response.WhichOneof("event"):
            case "accepted":
                yield from self._take_accepted(response.accepted)
            case "prediction":
                yield from self._take_prediction(response.prediction)
            case "progress":
                self._take_progress(response.progress)
                yield response.progress
            case "map":
                self._assembly.begin(response.map)
            case "method_result":
                yield from self._take_result(response.method_result)
            case "summary":
                yield from self._take_record(response.summary.record)

    def recover(self, fault: VoxplainError | None) -> Resuming:
        """Decide what happens after a call ended before the record came.

        Args:
            fault: None: the server closed the stream without a fault, for example because it is being shut down.

        Raises:
            VoxplainError: the fault, when trying again would not help or was tried often enough.
        """
        fault = fault or ServerUnavailable("CONNECTION_LOST", "the server closed the stream before the record")
        if isinstance(fault, CheckpointRefused) and self._checkpoint and not self._started_over:
            self._started_over = True
            self._checkpoint = b""
            return Resuming(fault=fault, attempt=1, wait_s=0.0, from_checkpoint=False)
        if self._advance > self._advance_at_fault:
            self._attempt = 0
        self._advance_at_fault = self._advance
        self._attempt += 1
        wait_s = self._policy.wait_s(fault, attempt=self._attempt, answered=self._accepted is not None)
        if wait_s is None:
            raise fault
        return Resuming(fault=fault, attempt=self._attempt, wait_s=wait_s, from_checkpoint=bool(self._checkpoint))

    def result(self) -> ExplanationResult:
        """Everything, once `finished`.

        Raises:
            ServerUnavailable: the record is not there yet.
        """
        if self._record is None or self._accepted is None or self._prediction is None:
            raise ServerUnavailable("NOT_FINISHED", "the explanation has not ended")
        return ExplanationResult(
            accepted=self._accepted,
            # Its plans are those that were computed; the one that came early had to estimate some.
            prediction=self._record.prediction if self._record.HasField("prediction") else self._prediction,
            record=self._record,
            results={result.method_key: result for result in self._record.results} or self._results,
            maps=self._by_modality(explain_pb2.QUANTITY_ATTRIBUTION),
            standard_errors=self._by_modality(explain_pb2.QUANTITY_STANDARD_ERROR),
            coverages=self._by_modality(explain_pb2.QUANTITY_COVERAGE),
        )

    def _by_modality(self, quantity: explain_pb2.Quantity.ValueType) -> dict[str, dict[str, MapReceived]]:
        found: dict[str, dict[str, MapReceived]] = {}
        for (key, held, modalities), received in self._maps.items():
            if held == quantity:
                found.setdefault(key, {}).update(dict.fromkeys(modalities, received))
        return found

    def _take_accepted(self, accepted: explain_pb2.Accepted) -> Iterator[Event]:
        if self._accepted is None:
            yield accepted
        elif accepted.model_digest != self._accepted.model_digest:
            raise UnsupportedByModel(
                "MODEL_CHANGED", "the server now holds another model of this version: ask anew", field="model"
            )
        self._accepted = accepted

    def _take_prediction(self, prediction: explain_pb2.Prediction) -> Iterator[Event]:
        if self._prediction is None:
            yield prediction
        self._prediction = prediction

    def _take_progress(self, progress: explain_pb2.Progress) -> None:
        self._checkpoint = progress.checkpoint or self._checkpoint
        self._advance = max(self._advance, (self._ended(), progress.evaluations_done))

    def _take_map(self, received: MapReceived) -> Iterator[Event]:
        header = received.header
        if header.quantity == explain_pb2.QUANTITY_LABELS:
            return
        if header.snapshot:
            yield received
            return
        key = (header.method_key, header.quantity, tuple(header.modalities))
        self._in_call[key] = received.sha256
        if self._keep_maps:
            self._maps[key] = received
        # A resumed call sends the maps of ended methods again; only bytes that are new are news.
        if self._delivered.get(key) != received.sha256:
            self._delivered[key] = received.sha256
            yield received

    def _take_result(self, result: explain_pb2.MethodResult) -> Iterator[Event]:
        before = self._results.get(result.method_key)
        self._results[result.method_key] = result
        self._advance = max(self._advance, (self._ended(), 0))
        if result.outcome == explain_pb2.OUTCOME_DRAINED:
            # What comes for it next is news also where its bytes are the same: it belongs to another result.
            self._delivered = {key: sha256 for key, sha256 in self._delivered.items() if key[0] != result.method_key}
        # A resumed call tells the results of ended methods again; only one that ended otherwise is news.
        if before is None or before.outcome != result.outcome:
            yield result

    def _take_record(self, record: explain_pb2.ExplanationRecord) -> Iterator[Event]:
        self._check_digests(record)
        drained = any(result.outcome == explain_pb2.OUTCOME_DRAINED for result in self._results.values())
        if drained and self._policy.attempts > 0:
            # The server is going away; another goes on, from the checkpoint if there is one: this record is not the last.
            return
        # A drained call may have sent maps that the one which went on has not: a coverage, for example.
        self._maps = {key: received for key, received in self._maps.items() if key in self._in_call}
        self._record = record
        yield record

    def _check_digests(self, record: explain_pb2.ExplanationRecord) -> None:
        recorded = {(held.method_key, int(held.quantity), tuple(held.modalities)): held.sha256 for held in record.maps}
        recorded = {key: digest for key, digest in recorded.items() if key[1] != explain_pb2.QUANTITY_LABELS}
        if recorded != self._in_call:
            raise ChecksumMismatch(
                "MAP_DIGEST_MISMATCH", "the maps that came are not those of the record: ask again", field="record.maps"
            )

    def _ended(self) -> int:
        return sum(result.outcome != explain_pb2.OUTCOME_DRAINED for result in self._results.values())
