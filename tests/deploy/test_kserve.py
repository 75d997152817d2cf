"""The manifests for KServe keep to the schemas of its own resources, and name what the server has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from voxplain_server import app
from voxplain_server.models.json_object import parse_json_object
from voxplain_server.models.metadata import read_metadata
from voxplain_server.settings import Settings, read_settings
from voxplain_server.workers.pool import _DRAINED_WITHIN_S

from tests.deploy.rendering import ROOT

KSERVE = ROOT / "deploy" / "kserve"
SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parent / "kserve_resources.json").read_text())
MANIFESTS: list[dict[str, Any]] = [
    each for path in sorted(KSERVE.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
]
OURS = [each for each in MANIFESTS if each["kind"] in SCHEMAS]


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"].get("predictor", manifest["spec"])
    return list(spec.get("containers", []))


def variables(container: dict[str, Any]) -> dict[str, str]:
    """What the container is told, with what Kubernetes itself fills in."""
    told = {}
    for each in container["env"]:
        if "value" in each:
            told[each["name"]] = each["value"]
        else:
            place, _, name = each["valueFrom"]["resourceFieldRef"]["resource"].partition(".")
            told[each["name"]] = container["resources"][place][name]
    return told


def one(name: str) -> dict[str, Any]:
    (found,) = [each for each in OURS if each["metadata"]["name"] == name]
    return found


def test_there_is_a_runtime_a_predictor_and_a_pair_beside_triton() -> None:
    assert [(each["kind"], each["metadata"]["name"]) for each in OURS] == [
        ("InferenceService", "glioma-triton"),
        ("InferenceService", "glioma-explained"),
        ("InferenceService", "glioma"),
        ("ServingRuntime", "voxplain"),
    ]


@pytest.mark.parametrize("manifest", OURS, ids=lambda each: each["metadata"]["name"])
def test_a_manifest_keeps_to_the_schema_of_its_kind(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    strange = manifest | {"spec": manifest["spec"] | {"predicter": {}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(strange, SCHEMAS[manifest["kind"]])


@pytest.mark.parametrize("manifest", OURS, ids=lambda each: each["metadata"]["name"])
def test_our_containers_start_a_server_with_settings_that_it_has(manifest: dict[str, Any], tmp_path: Path) -> None:
    for container in containers(manifest):
        environ = variables(container)
        arguments = [f"--models={tmp_path}" if each.startswith("--models=") else each for each in container["args"]]
        settings = read_settings(arguments, environ)
        assert settings.host == "0.0.0.0"
        # The runtime's grace is that of the InferenceServices that name it; see predictor.yaml.
        spec = manifest["spec"].get("predictor") or one("glioma")["spec"]["predictor"]
        limits = settings.limits
        assert limits.drain_seconds >= limits.job_seconds
        assert spec["terminationGracePeriodSeconds"] > limits.drain_seconds + _DRAINED_WITHIN_S + app.FAREWELL_SECONDS
        assert settings.threads_per_worker == int(container["resources"]["requests"]["cpu"])
        first = container["ports"][0]
        assert (first["name"], first["containerPort"]) == ("h2c", Settings(models=ROOT).port)
        assert container["readinessProbe"]["grpc"]["port"] == Settings(models=ROOT).health_port
        known = {f"VOXPLAIN_{name.upper()}" for name in (*vars_of(settings), *vars_of(settings.limits), "remote_endpoints")}
        assert set(environ) <= known


def vars_of(settings: Any) -> list[str]:
    return list(settings.__slots__)


def test_the_bundle_beside_triton_names_an_endpoint_that_is_listed(tmp_path: Path) -> None:
    (bundle,) = [each for each in MANIFESTS if each["kind"] == "ConfigMap"]
    path = tmp_path / "metadata.json"
    path.write_text(bundle["data"]["metadata.json"])
    assert parse_json_object(path.read_bytes()).has("voxplain")
    remote = read_metadata(path).options.remote
    assert remote is not None
    (container,) = containers(one("glioma-explained"))
    assert {"name": "VOXPLAIN_REMOTE_ENDPOINTS", "value": remote.endpoint} in container["env"]
    triton = one("glioma-triton")
    # KServe's service leads from port 80 to the first port of the first container, and is called so.
    assert remote.endpoint == f"grpc://{triton['metadata']['name']}-predictor:80"
    assert triton["spec"]["predictor"]["model"]["ports"][0]["containerPort"] == 9000


@pytest.mark.parametrize("manifest", OURS, ids=lambda each: each["metadata"]["name"])
def test_explanations_are_not_cut_by_a_request_timeout(manifest: dict[str, Any]) -> None:
    if manifest["kind"] == "InferenceService":
        assert manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
        assert "timeout" not in manifest["spec"]["predictor"]
