"""What Prometheus sees. Labels are bounded: names of our methods, models of the catalogue, codes; never what a client typed."""

from __future__ import annotations

from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_CALL_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
_STOP_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The server's metrics in a registry of their own; also a voxplain_server.workers.events.PoolObserver."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.explanations = self._counter(
            "voxplain_explanations", "Methods that ended, by outcome.", "method", "model", "outcome"
        )
        self.calls = self._counter("voxplain_calls", "Admitted calls that ended.", "model", "outcome")
        self.refused_calls = self._counter("voxplain_refused_calls", "Calls refused before admission.", "reason")
        self.duration = Histogram(
            "voxplain_explanation_duration_seconds",
            "Compute time of a method.",
            ("method", "model", "outcome"),
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )
        self.call_duration = Histogram(
            "voxplain_call_duration_seconds",
            "Time of an admitted call, from its spec to its end.",
            ("model", "outcome"),
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )
        self.in_flight = self._gauge("voxplain_inflight_explanations", "Calls that are admitted and have not ended.")
        self.queue = self._gauge("voxplain_queue_length", "Calls that wait for a worker.")
        self.evaluation_count = self._counter(
            "voxplain_evaluations", "Passes through a model: perturbed cases, or gradient passes.", "method", "engine"
        )
        self.saved_count = self._counter("voxplain_evaluations_saved", "Evaluations that needed no pass.", "reason")
        self.received = self._counter("voxplain_received_bytes", "Bytes of tensors received.")
        self.sent = self._counter("voxplain_sent_bytes", "Bytes of maps sent.")
        self.admitted = self._gauge("voxplain_admitted_bytes", "Bytes reserved by all calls, inputs and maps to come.")
        self.rejections = self._counter("voxplain_admission_rejections", "Calls that found no slot or no memory.", "reason")
        self.worker_restarts = self._counter("voxplain_worker_restarts", "Workers replaced.", "reason")
        self.stop_seconds = Histogram(
            "voxplain_cancel_to_stop_seconds",
            "Time from a cancel until the worker has stopped.",
            buckets=_STOP_SECONDS,
            registry=self.registry,
        )
        self.batch_sizes = Histogram(
            "voxplain_batch_size", "Perturbed cases in one pass.", buckets=_BATCH_SIZES, registry=self.registry
        )
        self.faults = self._counter(
            "voxplain_internal_faults", "Unforeseen exceptions, in the front or that ended a method or a call in a worker."
        )
        self.build = Gauge("voxplain_build_info", "Always 1.", ("version",), registry=self.registry)

    def evaluations(self, *, method: str, engine: str, count: int) -> None:
        """Perturbed cases went through a model, or gradient passes were done."""
        self.evaluation_count.labels(method, engine).inc(count)

    def saved(self, *, reason: str, count: int) -> None:
        """Evaluations needed no pass."""
        self.saved_count.labels(reason).inc(count)

    def batch_size(self, size: int) -> None:
        """A call begins with this many perturbed cases in one pass."""
        self.batch_sizes.observe(size)

    def restarts(self, reason: str) -> None:
        """A worker is replaced."""
        self.worker_restarts.labels(reason).inc()

    def cancel_to_stop_seconds(self, seconds: float) -> None:
        """A cancelled worker has stopped."""
        self.stop_seconds.observe(seconds)

    def queue_length(self, calls: int) -> None:
        """So many calls wait."""
        self.queue.set(calls)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)


class MetricsServer:
    """Serves metrics over plain HTTP on a port of its own, from a thread."""

    def __init__(self, metrics: Metrics, *, host: str, port: int) -> None:
        self._server: WSGIServer
        self._thread: Thread
        self._server, self._thread = start_http_server(port, addr=host, registry=metrics.registry)

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._server.server_port

    def stop(self) -> None:
        """Let the port go."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
