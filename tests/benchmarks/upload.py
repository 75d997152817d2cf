"""A whole BraTS case, 4 x 240 x 240 x 155 float32 (136 MiB), over loopback with default client options."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from voxplain_client import Client, Prediction, Progress

from tests.benchmarks import vgg_like
from tests.benchmarks.bare_transport import BareTransport, seconds_to_store
from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.process_tree import MIB, used_bytes, watched
from tests.serving import RunningServer

SHAPE = (240, 240, 155)
RUNS = 11
PAUSE_SECONDS = 1.0
SETTLE_SECONDS = 5.0
"""After a call, workers give their memory back when they have been idle for a while."""


def write_bundle(models: Path) -> None:
    """A net that costs nothing: the mean of each modality, and a linear layer."""
    folder = models / "mean" / "1"
    folder.mkdir(parents=True)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"]),
    ]
    channels = len(vgg_like.MODALITIES)
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.eye(channels, 2, dtype=np.float32), "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "model.onnx")
    metadata = vgg_like.metadata(SHAPE[0])
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = list(SHAPE)  # type: ignore[index]
    (folder / "metadata.json").write_text(json.dumps(metadata))


def measure() -> Iterator[Figure]:
    """Rate, growth while receiving, and what is left a second later."""
    draws = np.random.default_rng(0)
    volumes = {name: draws.standard_normal(SHAPE, dtype=np.float32) for name in vgg_like.MODALITIES}
    payload = sum(volume.nbytes for volume in volumes.values())
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch)
        write_bundle(models)
        with RunningServer(models) as server, Client(server.address) as client, BareTransport() as bare:
            yield from _rates(client, bare, volumes, payload)
        found = [_memory(models, arguments, volumes, payload) for arguments in ((), ("--upload-buffer-bytes", "0"))]
    (growth, left), (grown_fresh, left_fresh) = found
    told = f"with the kept buffer {growth:.2f}, without it {grown_fresh:.2f}: PSS of the process tree and its memory files"
    yield figure("upload/memory_growth_vs_payload", max(growth, grown_fresh), "x", told)
    told = f"over the memory before the call; with the kept buffer {left:.2f}, without it {left_fresh:.2f}"
    yield figure("upload/left_after_1s", max(left, left_fresh), "MiB", told)


def _memory(models: Path, arguments: Sequence[str], volumes: Mapping[str, np.ndarray], payload: int) -> tuple[float, float]:
    """Growth while receiving over the payload, and MiB left a second after a call."""
    with RunningServer(models, arguments) as server, Client(server.address) as client:
        _seconds_to_receive(client, volumes)
        time.sleep(SETTLE_SECONDS)
        before = used_bytes(server.pid)
        with watched(server.pid, every_s=0.01) as peak:
            _seconds_to_receive(client, volumes, until_received=True)
            received_peak = peak.bytes
        time.sleep(SETTLE_SECONDS)
        settled = used_bytes(server.pid)
        _seconds_to_receive(client, volumes)
        time.sleep(1.0)
        return (received_peak - before) / payload, (used_bytes(server.pid) - settled) / MIB


def _rates(client: Client, bare: BareTransport, volumes: Mapping[str, np.ndarray], payload: int) -> Iterator[Figure]:
    """Ours, and in turn with it the two parts that it cannot do without, so that all see the same moods of the machine."""
    tensor = np.concatenate([volume.reshape(-1) for volume in volumes.values()])
    rates, transport, storing = [], [], []
    for _ in range(RUNS):
        # One upload at a time: the server is still giving back the memory of the last call when its answer is out.
        time.sleep(PAUSE_SECONDS)
        rates.append(payload / _seconds_to_receive(client, volumes) / 1e9)
        time.sleep(PAUSE_SECONDS)
        transport.append(payload / bare.seconds(tensor) / 1e9)
        storing.append(payload / seconds_to_store(tensor) / 1e9)
    yield _median("upload/136MiB", rates, "")
    yield _median("upload/transport_alone", transport, ": gRPC's Python on the same messages, neither checked nor stored")
    yield _median("upload/storing_alone", storing, ": the same bytes into a fresh memory file")
    both = [1.0 / (1.0 / one + 1.0 / other) for one, other in zip(transport, storing, strict=True)]
    share = float(np.median(np.array(rates) / np.array(both)))
    yield figure(
        "upload/share_of_transport_then_storing",
        share,
        "x",
        "over 1: kept pages spare more than checking costs",
    )


def _median(name: str, rates: list[float], told: str) -> Figure:
    return figure(name, float(np.median(rates)), "GB/s", f"median of {RUNS}, {min(rates):.2f} to {max(rates):.2f}{told}")


def _seconds_to_receive(client: Client, volumes: Mapping[str, np.ndarray], *, until_received: bool = False) -> float:
    """Seconds from the call until the server says that every byte is there; then the call ends, or is cancelled."""
    start = time.perf_counter()
    received = 0.0
    with client.explain(model="mean", volumes=volumes, methods=["modality-shapley"]) as explanation:
        for event in explanation:
            complete = isinstance(event, Progress) and 0 < event.bytes_total == event.bytes_received
            if not received and (complete or isinstance(event, Prediction)):
                received = time.perf_counter() - start
                if until_received:
                    break
    return received
