"""What Prometheus sees. Labels are bounded twice: they are names of ours, never what clients type, and their sets are counted.

A scrape has at most 500 series, whatever clients send and however many models there are (tests/server/observe adds up the
worst): the budget of each metric stands beside it. Where a metric has no room left, the label `other` takes the rest.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from voxplain_server.observe.label_sets import LabelSets

MOST_SERIES = 500
"""Of one server."""

_CALL_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800, 3600)
_SNAPSHOT_SECONDS = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAIT_SECONDS = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900)
_STOP_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LAG_SECONDS = (0.01, 0.05, 0.25)
_RPC_SECONDS = (0.005, 0.05, 0.5, 5, 60, 3600)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_RPC = ("grpc_type", "grpc_service", "grpc_method")

# prometheus_client would add a series with its time of birth to every counter and histogram.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The server's metrics, in a registry of their own.

    Args:
        max_bytes: what all calls together may reserve; 0: not told.
        max_calls: calls that may be admitted at one time; 0: not told.
    """

    def __init__(self, *, max_bytes: int = 0, max_calls: int = 0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        # Calls as gRPC sees them, under the names of the go-grpc-prometheus family.
        self.rpc_started = self._counter("grpc_server_started", "RPCs started.", *_RPC)
        self.rpc_handled = LabelSets(
            self._counter("grpc_server_handled", "RPCs completed, by status.", *_RPC, "grpc_code"),
            most=48,
            kept=("grpc_code",),
        )
        self.rpc_received = self._counter("grpc_server_msg_received", "Messages received on streams and calls.", *_RPC)
        self.rpc_sent = self._counter("grpc_server_msg_sent", "Messages sent on streams and calls.", *_RPC)
        self.rpc_seconds = self._histogram("grpc_server_handling_seconds", "Time of RPCs.", _RPC_SECONDS, *_RPC)

        # Explanations.
        self.explanations = LabelSets(
            self._counter("voxplain_explanations", "Methods that ended, by outcome.", "method", "model", "outcome"),
            most=60,
            kept=("outcome",),
        )
        self.calls = LabelSets(self._counter("voxplain_calls", "Admitted calls that ended.", "outcome"), most=4)
        self.refused_calls = LabelSets(
            self._counter("voxplain_refused_calls", "Calls refused before admission.", "reason"), most=16
        )
        self.duration = LabelSets(
            self._histogram(
                "voxplain_explanation_duration_seconds",
                "Time of a completed call, from its spec to its end.",
                _CALL_SECONDS,
                "model",
            ),
            most=4,
        )
        self.inferences = LabelSets(
            self._counter("voxplain_inferences", "ModelInfer calls that were let in, by outcome.", "model", "outcome"),
            most=6,
            kept=("outcome",),
        )
        self.compute_seconds = LabelSets(
            self._counter("voxplain_compute_seconds", "Compute time of all workers together.", "method"), most=20
        )
        self.first_snapshot = self._histogram(
            "voxplain_time_to_first_snapshot_seconds",
            "Time from the spec to the first map, in calls that ask for snapshots.",
            _SNAPSHOT_SECONDS,
        )
        self.queue_wait = self._histogram(
            "voxplain_queue_wait_seconds", "Time that a complete call waited for a worker.", _WAIT_SECONDS
        )
        self.queue = self._gauge("voxplain_queue_length", "Calls that wait for a worker.")
        self.in_flight = self._gauge("voxplain_inflight_explanations", "Calls that are admitted and have not ended.")
        self.in_flight_limit = self._gauge("voxplain_inflight_explanations_limit", "Calls that may be admitted at one time.")

        # The compute, as workers told it.
        self.evaluations = LabelSets(
            self._counter(
                "voxplain_evaluations", "Passes through a model: perturbed cases, or gradient passes.", "method", "engine"
            ),
            most=28,
        )
        self.saved = LabelSets(
            self._counter("voxplain_evaluations_saved", "Evaluations that needed no pass.", "reason"), most=4
        )
        self.batch_size = self._histogram(
            "voxplain_evaluation_batch_size", "Perturbed cases that went through the model in one pass.", _BATCH_SIZES
        )
        self.stop_seconds = self._histogram(
            "voxplain_cancel_to_stop_seconds", "Time from a cancel until the worker has stopped.", _STOP_SECONDS
        )
        self.workers_ready = self._gauge("voxplain_workers_ready", "Compute processes that are up.")
        self.worker_restarts = LabelSets(
            self._counter("voxplain_worker_restarts", "Workers replaced, by reason.", "reason"), most=4
        )

        # Room.
        self.received = self._counter("voxplain_received_bytes", "Bytes of tensors received.")
        self.sent = self._counter("voxplain_sent_bytes", "Bytes of maps sent.")
        self.admitted = self._gauge("voxplain_admitted_bytes", "Bytes reserved by all calls, inputs and maps to come.")
        self.admitted_limit = self._gauge("voxplain_admitted_bytes_limit", "Bytes that all calls together may reserve.")
        self.rejections = LabelSets(
            self._counter("voxplain_admission_rejections", "Calls that found no slot or no memory.", "reason"), most=4
        )

        self.refusal_seconds = self._histogram(
            "voxplain_refusal_seconds",
            "Time until a call that is to come again was told so, from its reaching the service.",
            _LAG_SECONDS,
        )

        # The server.
        self.loop_lag = self._histogram(
            "voxplain_event_loop_lag_seconds", "How late the front's event loop was, ten times a second.", _LAG_SECONDS
        )
        self.serving = self._gauge("voxplain_serving", "1 where health answers SERVING, else 0.")
        self.faults = self._counter(
            "voxplain_internal_faults", "Unforeseen exceptions, in the front or that ended a method or a call in a worker."
        )
        self.build = Gauge("voxplain_build_info", "Always 1.", ("version",), registry=self.registry)
        self.admitted_limit.set(max_bytes)
        self.in_flight_limit.set(max_calls)
        # Born at 0: of a series that begins at 1 Prometheus does not see the first increase, and no alert would.
        for family, values in (
            (self.calls, ("completed", "drained", "cancelled", "failed")),
            (self.worker_restarts, ("died", "silent", "cancel", "start")),
            (self.rejections, ("QUEUE_FULL", "MEMORY_EXHAUSTED", "CALL_TOO_LARGE")),
            (self.saved, ("unchanged", "repeated", "shared", "checkpoint")),
        ):
            for value in values:
                family.labels(value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
