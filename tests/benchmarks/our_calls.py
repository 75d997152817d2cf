"""Calls over gRPC to a server of our own, each method's seconds of compute, and the maps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client import Client, ExplanationResult

from tests.benchmarks.subject import CLASS_INDEX, Subject, Volumes
from tests.serving import RunningServer

READY_SECONDS = 900.0
"""A model is checked and its engines are measured before; some networks take ten seconds for a pass at 128^3."""


@dataclass(frozen=True, slots=True)
class OurServer:
    """A server that holds one subject.

    Attributes:
        client: talks to it.
        pid: of its front.
        subject: what it holds.
        edge: of the volumes.
    """

    client: Client
    pid: int
    subject: Subject
    edge: int

    def explain(
        self, methods: Sequence[method_pb2.Method | str], *, volumes: Volumes | None = None, **more: Any
    ) -> ExplanationResult:
        """One call; `more` as `Client.explain` takes it."""
        region = self.subject.region(self.edge)
        mask = None if region is None else region.astype(np.float32)
        with self.client.explain(
            model=self.subject.name,
            volumes=volumes or self.subject.volumes(self.edge),
            methods=methods,
            target=CLASS_INDEX,
            mask=mask,
            **more,
        ) as explanation:
            return explanation.result()

    def maps(self, result: ExplanationResult, name: str) -> npt.NDArray[np.float32]:
        """(modalities, *spatial) of one method."""
        found = result.maps[name]
        return np.stack([found[modality].array for modality in self.subject.modalities]).astype(np.float32)


@contextmanager
def our_server(subject: Subject, edge: int, *, engine: str = "auto") -> Iterator[OurServer]:
    """A fresh server with a warm worker."""
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch)
        subject.write_bundle(models, edge)
        with (
            RunningServer(models, ("--engine", engine), ready_seconds=READY_SECONDS) as server,
            Client(server.address) as client,
        ):
            ours = OurServer(client, server.pid, subject, edge)
            ours.explain(["occlusion"], budget=explain_pb2.Budget(max_evaluations=32))
            yield ours


def compute_seconds(results: Mapping[str, explain_pb2.MethodResult], *names: str) -> float:
    """Seconds of compute of some methods together."""
    return sum(results[name].compute_duration.ToNanoseconds() for name in names) / 1e9
