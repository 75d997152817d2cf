"""A server that is stopped in the middle of a call, the client, and the server that comes after it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxplain.v1 import explain_pb2, method_pb2
from voxplain.volume import Geometry, Volume
from voxplain_client import Client, Resuming, RetryPolicy
from voxplain_client.events import Event

from tests.bundles import early_fusion_classes
from tests.serving import RunningServer

COMPLETED, DRAINED = explain_pb2.OUTCOME_COMPLETED, explain_pb2.OUTCOME_DRAINED
COMPUTING = explain_pb2.Progress.STAGE_COMPUTING
# One by one and in blocks of two: seconds of work, of which the first server gets what fits between the first Progress of
# computing and the end of its grace.
SLOWLY = explain_pb2.Execution(batch_size=1, block_size=2)
EVERYWHERE = method_pb2.Method(key="occlusion", occlusion=method_pb2.Occlusion(window=[1], stride=[1]))


def test_methods_that_had_not_begun_when_a_server_was_stopped_are_done_by_the_next(tmp_path: Path) -> None:
    bundle = early_fusion_classes(tmp_path / "models", modalities=4)
    volumes = {name: Volume(Geometry(each.shape, bundle.affine), each) for name, each in bundle.volumes().items()}
    asked: dict[str, Any] = {
        "model": bundle.name,
        "volumes": volumes,
        "methods": [EVERYWHERE, "gradient", "feature-ablation"],
        "execution": SLOWLY,
    }
    arguments = ["--workers", "1", "--threads-per-worker", "1", "--engine", "onnxruntime", "--drain-seconds", "0.25"]
    environ = {"VOXPLAIN_CHECKPOINT_KEY": "00" * 32}
    events: list[Event] = []
    with RunningServer(bundle.models, arguments, environ) as first:
        port = first.address.rpartition(":")[2]
        after = RunningServer(bundle.models, [*arguments, "--port", port], environ)
        replacing = threading.Thread(target=replace, args=(first, after))
        patient = RetryPolicy(attempts=200, first_wait_s=0.5, longest_wait_s=0.5)
        with closing_server(after), Client(first.address, policy=patient) as client:
            explanation = client.explain(**asked)
            for event in explanation:
                events.append(event)
                if replacing.ident is None and isinstance(event, explain_pb2.Progress) and event.evaluations_done > 0:
                    replacing.start()
            broken = explanation.result()
            whole = client.explain(**asked).result()
    ended = [(each.method_key, each.outcome) for each in events if isinstance(each, explain_pb2.MethodResult)]
    keys = ["occlusion", "gradient", "feature-ablation"]
    assert ended == [(key, DRAINED) for key in keys] + [(key, COMPLETED) for key in keys]
    assert next(each for each in events if isinstance(each, Resuming)).from_checkpoint
    assert broken.record.maps == whole.record.maps
    assert sorted(broken.maps) == sorted(keys)
    # The coverage of the part that the first server had done is not that of the whole map.
    assert not broken.coverages


@contextmanager
def closing_server(server: RunningServer) -> Iterator[None]:
    """Stop a server at the end, if it was started."""
    try:
        yield
    finally:
        server.stop()


def replace(first: RunningServer, after: RunningServer) -> None:
    """Stop one server and start the other at its place."""
    first.send(signal.SIGTERM)
    first.wait()
    after.start()
