"""Who may be asked, how it is shown who asks, and what is refused before any voxel leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from voxplain.errors import UnsupportedByModel, VoxplainError
from voxplain_server.engines.remote_engine import RemoteEngine
from voxplain_server.engines.retry_budget import RetryBudget
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.case import Case
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess, RemoteAccessRefused
from voxplain_server.models.remote_loading import load_remote_model
from voxplain_server.settings import SettingsRefused, read_settings
from voxplain_server.workers.engine_probe import probe_windows
from voxplain_server.workers.probe_cases import probe_cases
from voxplain_server.workers.probe_timing import any_score

from tests import bundles
from tests.bundles import TinyBundle
from tests.server.remote.inference_server import SECRET, InferenceServer, serving
from tests.server.remote.remote_bundle import remote_bundle


def place_of(bundle: TinyBundle) -> BundlePlace:
    return BundlePlace(bundle.name, bundle.version, bundle.folder)


@pytest.fixture
def local(tmp_path: Path) -> TinyBundle:
    return bundles.early_fusion_classes(tmp_path / "local")


def opened(local: TinyBundle, models: Path, endpoint: str, **remote: Any) -> tuple[RemoteEngine, Case]:
    access = RemoteAccess(endpoints=(endpoint,))
    model = load_remote_model(place_of(remote_bundle(local, models, endpoint, **remote)), access=access)
    return RemoteEngine(model, access=access), next(probe_cases(model, 16))


def test_an_endpoint_that_the_operator_did_not_list_is_never_asked(local: TinyBundle, tmp_path: Path) -> None:
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        far = place_of(remote_bundle(local, tmp_path, endpoint))
        for access in (NO_REMOTE, RemoteAccess(endpoints=(endpoint.replace("grpc:", "grpcs:"),))):
            with pytest.raises(ModelRefused) as caught:
                load_remote_model(far, access=access)
            assert caught.value.reason == "REMOTE_NOT_ALLOWED"
            assert "127.0.0.1" not in caught.value.message
    assert server.requests == 0


def test_both_sides_show_certificates(local: TinyBundle, tmp_path: Path) -> None:
    authority = trustme.CA()
    own, ours = authority.issue_cert("localhost"), authority.issue_cert("voxplain")
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(ca)
    ours.cert_chain_pems[0].write_to_path(cert)
    ours.private_key_pem.write_to_path(key)
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())], authority.cert_pem.bytes(), True
    )
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server, credentials=credentials) as endpoint:
        far = place_of(remote_bundle(local, tmp_path, endpoint))
        with pytest.raises(ModelRefused) as caught:
            load_remote_model(far, access=RemoteAccess(endpoints=(endpoint,), ca=ca))
        assert caught.value.reason == "REMOTE_UNAVAILABLE"
        access = RemoteAccess(endpoints=(endpoint,), ca=ca, cert=cert, key=key)
        model = load_remote_model(far, access=access)
        engine = RemoteEngine(model, access=access)
        assert engine.answer(next(probe_cases(model, 16))).shape == (1, 2)
        engine.forget()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "REMOTE_REFUSED"),
        (grpc.StatusCode.INTERNAL, "REMOTE_REFUSED"),
        (grpc.StatusCode.UNAVAILABLE, "REMOTE_RETRY_BUDGET_SPENT"),
    ],
)
def test_a_fault_has_a_typed_reason_and_none_of_the_servers_words(
    local: TinyBundle, tmp_path: Path, code: grpc.StatusCode, reason: str
) -> None:
    server = InferenceServer(local.folder / "model.onnx", fail_every=1, code=code)
    with serving(server) as endpoint:
        engine, case = opened(local, tmp_path, endpoint, retry_floor=2, retry_share=0)
        with pytest.raises(VoxplainError) as caught:
            engine.answer(case)
        engine.forget()
    assert caught.value.reason == reason
    assert code.name in caught.value.message
    assert not any(word in caught.value.message for word in SECRET.split())


def test_an_answer_of_another_version_ends_the_job(local: TinyBundle, tmp_path: Path) -> None:
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        engine, case = opened(local, tmp_path, endpoint)
        engine.answer(case)
        server.version = "4"
        for forgotten in (False, True):
            if forgotten:
                engine.forget()
            with pytest.raises(UnsupportedByModel) as caught:
                engine.answer(case)
            assert caught.value.reason == "MODEL_CHANGED"
        engine.forget()


def test_a_server_that_tells_no_shapes_is_believed_the_metadata(local: TinyBundle, tmp_path: Path) -> None:
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        told, case = opened(local, tmp_path / "a", endpoint)
        server.tells = False
        untold, _ = opened(local, tmp_path / "b", endpoint)
        with pytest.raises(UnsupportedByModel, match="another model"):
            told.answer(case)
        answer = untold.answer(case)
        server.tells = True
        engine, _ = opened(local, tmp_path / "a", endpoint)
        np.testing.assert_array_equal(engine.answer(case), answer)
        for each in (told, untold, engine):
            each.forget()


def test_settings_name_what_is_wrong(tmp_path: Path) -> None:
    for wrong in (["--remote-endpoints", "triton:8001"], ["--remote-cert", str(tmp_path)], ["--remote-ca", "nowhere.pem"]):
        with pytest.raises(SettingsRefused, match=wrong[0]):
            read_settings(["--models", str(tmp_path), *wrong], {})
    settings = read_settings(["--models", str(tmp_path)], {"VOXPLAIN_REMOTE_ENDPOINTS": "grpcs://a:1, grpc://[::1]:2"})
    assert settings.remote.endpoints == ("grpcs://a:1", "grpc://[::1]:2")
    with pytest.raises(RemoteAccessRefused):
        RemoteAccess(endpoints=("grpc://unix:/tmp/socket",)).check()


def test_a_batch_that_the_remote_fixes_is_filled(tmp_path: Path) -> None:
    fixed, free = (bundles.early_fusion_classes(tmp_path / str(batch), batch=batch) for batch in (3, None))
    servers = [InferenceServer(each.folder / "model.onnx") for each in (fixed, free)]
    answers, scores = [], []
    for number, (local, server) in enumerate(zip((fixed, free), servers, strict=True)):
        with serving(server) as endpoint:
            engine, case = opened(local, tmp_path / f"far-{number}", endpoint)
            answers.append(engine.answer(case))
            score, windows = any_score(case.model, answers[-1]), probe_windows(case, edge=3, count=8)
            scores.append(engine.scores(case, score, windows, batch_size=2, cancelled=lambda: False))
            engine.forget()
    assert set(servers[0].batches) == {3}
    assert set(servers[1].batches) == {1, 2}
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_a_retry_budget_is_a_floor_and_a_share() -> None:
    budget = RetryBudget(share=0.5, floor=2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.note_request()
    assert [budget.take() for _ in range(3)] == [True, True, False]
