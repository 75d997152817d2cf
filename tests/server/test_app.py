"""The server as its operator meets it: a command, a ready line, ports, signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from voxplain import wire
from voxplain.inference import open_inference_pb2, open_inference_pb2_grpc
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc, explain_pb2, method_pb2

from tests.bundles import TinyBundle, early_fusion_classes
from tests.oracle import held_by, settle_server
from tests.server.service.front import EXPLAIN
from tests.serving import RunningServer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    made = early_fusion_classes(tmp_path_factory.mktemp("models"))
    broken = made.models / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"not a model")
    (broken / "metadata.json").write_text("{}")
    return made


@pytest.fixture(scope="module")
def server(bundle: TinyBundle) -> Iterator[RunningServer]:
    running = RunningServer(bundle.models, ["--reflection"])
    with running:
        yield running
    assert running.exit_status == 0


def spec_for(bundle: TinyBundle) -> explain_pb2.ExplainSpec:
    return explain_pb2.ExplainSpec(
        model=bundle.name,
        tensors=bundle.headers(),
        methods=[method_pb2.Method(occlusion=method_pb2.Occlusion(window=[6], stride=[5]))],
    )


def explain(server: RunningServer, bundle: TinyBundle) -> list[str]:
    def requests() -> Iterator[bytes]:
        yield explain_pb2.ExplainRequest(spec=spec_for(bundle)).SerializeToString()
        for name, voxels in bundle.volumes().items():
            yield from wire.encode_chunks(name, wire.array_bytes(voxels))

    with grpc.insecure_channel(server.address) as channel:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
        answers = method(requests(), timeout=120)
        return [explain_pb2.ExplainResponse.FromString(each).WhichOneof("event") or "" for each in answers]


def health(server: RunningServer) -> int:
    with grpc.insecure_channel(server.health_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return int(answer.status)


def test_the_ready_line_names_ports_models_and_version(server: RunningServer, bundle: TinyBundle) -> None:
    assert server.ready["ready"] is True
    assert server.ready["models"] == [bundle.name]
    assert server.ready["version"]
    ports = [server.ready[name] for name in ("port", "health_port", "metrics_port")]
    assert len(set(ports)) == 3
    assert all(isinstance(port, int) and port > 0 for port in ports)


def test_it_is_healthy_serves_a_call_and_counts_it(server: RunningServer, bundle: TinyBundle) -> None:
    assert health(server) == health_pb2.HealthCheckResponse.SERVING
    kinds = explain(server, bundle)
    assert (kinds[0], kinds[-1]) == ("accepted", "summary")
    with urllib.request.urlopen(server.metrics_url) as answer:
        text = answer.read().decode()
    assert f'voxplain_explanations_total{{method="occlusion",model="{bundle.name}",outcome="completed"}} 1.0' in text
    assert "voxplain_build_info" in text


def test_it_predicts_from_the_file_that_it_explains(server: RunningServer, bundle: TinyBundle) -> None:
    session = onnxruntime.InferenceSession(str(bundle.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    image = np.stack([np.stack(list(bundle.volumes(seed).values())) for seed in range(2)])
    request = open_inference_pb2.ModelInferRequest(model_name=bundle.name, raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    with grpc.insecure_channel(server.address) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(open_inference_pb2.ServerReadyRequest(), timeout=10).ready
        answer = stub.ModelInfer(request, timeout=60)
    (output,) = answer.outputs
    ours = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(list(output.shape))
    np.testing.assert_allclose(ours, session.run(None, {"image": image})[0], rtol=1e-5)
    settle_server(server.metrics_url, server.pid)
    with urllib.request.urlopen(server.metrics_url) as page:
        assert f'voxplain_inferences_total{{model="{bundle.name}",outcome="completed"}} 1.0' in page.read().decode()


def test_workers_of_its_own_answer_predictions_while_the_only_other_one_explains(bundle: TinyBundle) -> None:
    volumes = bundle.volumes()
    image = np.stack([np.stack(list(volumes.values()))])
    request = open_inference_pb2.ModelInferRequest(model_name=bundle.name, raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    spec = spec_for(bundle)
    # Far longer than a prediction takes on any host; it is cancelled.
    spec.methods[0].CopyFrom(method_pb2.Method(shapley_value_sampling=method_pb2.ShapleyValueSampling(permutations=2000)))
    asked_at_last = threading.Event()

    def requests() -> Iterator[bytes]:
        yield explain_pb2.ExplainRequest(spec=spec).SerializeToString()
        for name, voxels in volumes.items():
            yield from wire.encode_chunks(name, wire.array_bytes(voxels))
        asked_at_last.wait(60)

    with (
        RunningServer(bundle.models, ["--inference-workers", "1"]) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
        explaining = method(requests())
        for answer in explaining:
            event = explain_pb2.ExplainResponse.FromString(answer)
            if event.progress.stage == explain_pb2.Progress.STAGE_COMPUTING:
                break
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request, timeout=60).raw_output_contents
        # The explanation holds its worker still: it was not waited for.
        assert held_by(running.metrics_url)["jobs"] == 1
        asked_at_last.set()
        explaining.cancel()
        settle_server(running.metrics_url, running.pid)
    assert running.exit_status == 0


def test_a_corrupt_model_is_listed_with_its_reason_and_the_others_load(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        answer = catalog_pb2_grpc.CatalogServiceStub(channel).ListModels(catalog_pb2.ListModelsRequest())
    broken = next(each for each in answer.models if each.name == "broken")
    assert broken.refused_versions[0].reason
    assert not broken.versions


def test_it_describes_itself_where_told_to(server: RunningServer) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {each.name for each in answer.list_services_response.service}
    assert {"voxplain.v1.ExplainService", "voxplain.v1.CatalogService", "inference.GRPCInferenceService"} <= names


def test_its_log_is_json_lines_only(server: RunningServer) -> None:
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert "ready" in [line["event"] for line in lines]


def test_a_port_that_is_taken_is_named(bundle: TinyBundle) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "voxplain_server", "--models", str(bundle.models), "--health-port", "0"]
        done = subprocess.run([*command, "--metrics-port", port], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "--metrics-port" in done.stderr
    assert done.stdout == ""


def test_settings_that_cannot_be_end_with_status_two(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "voxplain_server", "--models", str(tmp_path), "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--insecure" in done.stderr


def test_sigterm_lets_a_running_call_end_and_exits_with_zero(bundle: TinyBundle) -> None:
    server = RunningServer(bundle.models)
    with server, grpc.insecure_channel(server.address) as channel:
        sent = iter(
            [
                explain_pb2.ExplainRequest(spec=spec_for(bundle)).SerializeToString(),
                *(
                    message
                    for name, voxels in bundle.volumes().items()
                    for message in wire.encode_chunks(name, wire.array_bytes(voxels))
                ),
            ]
        )
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
        answers = method(sent, timeout=120)
        first = explain_pb2.ExplainResponse.FromString(next(answers))
        assert first.WhichOneof("event") == "accepted"
        prediction = next(each for each in answers if explain_pb2.ExplainResponse.FromString(each).HasField("prediction"))
        assert prediction
        server.send(signal.SIGTERM)
        kinds = [explain_pb2.ExplainResponse.FromString(each).WhichOneof("event") for each in answers]
        assert kinds[-1] == "summary"
        assert server.wait() == 0


def test_a_new_version_is_served_without_a_restart(tmp_path: Path) -> None:
    models = tmp_path / "models"
    early_fusion_classes(models, modalities=2)
    with RunningServer(models, ["--reload-seconds", "0.2", "--engine", "onnxruntime"]) as server:
        staged = early_fusion_classes(tmp_path / "staging", version="2", modalities=2, seed=2)
        staged.folder.rename(models / staged.name / "2")
        with grpc.insecure_channel(server.address) as channel:
            stub = catalog_pb2_grpc.CatalogServiceStub(channel)
            until = time.monotonic() + 120
            while '"models_changed"' not in server.log:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert stub.GetModel(catalog_pb2.GetModelRequest(name=staged.name)).model.version == "2"
