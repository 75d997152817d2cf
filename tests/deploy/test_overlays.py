"""Every overlay renders, fits the schemas of Kubernetes, and keeps what the base promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from voxplain_server.observe.metrics import Metrics
from voxplain_server.settings import read_settings

from tests.deploy.rendering import BASE, KUSTOMIZE, render, render_with

KUBERNETES = "1.33"
OVERLAYS = ("cpu", "gpu", "mtls", "autoscale")
FOLDERS = (BASE, *(KUSTOMIZE / "overlays" / name for name in OVERLAYS))
SCHEMAS: Mapping[str, Any] = json.loads((Path(__file__).parent / "custom_resources.json").read_text())
"""The fields that we use of kinds that Kubernetes itself does not know, as their operator documents them, and no others."""

Manifest = dict[str, Any]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


def one(manifests: list[Manifest], kind: str, name: str = "voxplain") -> Manifest:
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod(manifests: list[Manifest]) -> Manifest:
    return dict(one(manifests, "Deployment")["spec"]["template"]["spec"])


def container(manifests: list[Manifest]) -> Manifest:
    (found,) = pod(manifests)["containers"]
    return dict(found)


def variables(manifests: list[Manifest]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(manifests)["env"] if "value" in each}


def test_every_manifest_fits_its_schema(manifests: list[Manifest]) -> None:
    for each in manifests:
        if each["kind"] in SCHEMAS:
            jsonschema.validate(each, SCHEMAS[each["kind"]])
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("components", [("mtls",), ("egress",), ("cache",), ("mtls", "egress", "cache")], ids="+".join)
def test_every_component_goes_on_top_of_the_base_and_of_every_overlay(folder: Path, components: tuple[str, ...]) -> None:
    if folder.name == "mtls":
        components = tuple(each for each in components if each != "mtls")
    manifests = render_with(folder, components)
    test_every_manifest_fits_its_schema(manifests)
    test_the_pod_keeps_to_the_restricted_standard(manifests)
    test_everything_lives_in_one_namespace_that_enforces_the_restricted_standard(manifests)


def test_a_manifest_with_a_misspelt_field_would_not() -> None:
    manifests = render(BASE)
    container(manifests)["resources"]["limit"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one(manifests, "Deployment"), KUBERNETES, strict=True)


def test_everything_lives_in_one_namespace_that_enforces_the_restricted_standard(manifests: list[Manifest]) -> None:
    namespace = one(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"].get("namespace") for each in manifests if each["kind"] != "Namespace"} == {"voxplain"}


def test_the_pod_keeps_to_the_restricted_standard(manifests: list[Manifest]) -> None:
    """Kubernetes, Pod Security Standards, "Restricted": every control that applies to Linux pods."""
    spec, own = pod(manifests), container(manifests)["securityContext"]
    assert not any(spec.get(each) for each in ("hostNetwork", "hostPID", "hostIPC", "initContainers"))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])
    assert not any("hostPort" in port for port in container(manifests)["ports"])


def test_nothing_but_scratch_may_be_written(manifests: list[Manifest]) -> None:
    writable = {mount["mountPath"] for mount in container(manifests)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp"}


def test_memory_is_asked_for_as_it_is_limited(manifests: list[Manifest]) -> None:
    resources = container(manifests)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_selectors_select_the_pod_and_all_else_is_denied(manifests: list[Manifest]) -> None:
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(manifests, "Service")["spec"]["selector"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    deny = one(manifests, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = one(manifests, "NetworkPolicy")["spec"]
    assert "egress" not in rules
    assert all(rule["from"] and rule["ports"] for rule in rules["ingress"])
    assert {port["port"] for rule in rules["ingress"] for port in rule["ports"]} == {"grpc", "metrics"}


def test_the_service_is_headless_so_that_clients_balance(manifests: list[Manifest]) -> None:
    assert one(manifests, "Service")["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_serve_models_of_a_volume_that_nobody_writes(overlay: str) -> None:
    manifests = render(KUSTOMIZE / "overlays" / overlay)
    (volume,) = [each for each in pod(manifests)["volumes"] if each["name"] == "models"]
    (mount,) = [each for each in container(manifests)["volumeMounts"] if each["name"] == "models"]
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    assert (mount["mountPath"], mount["readOnly"]) == ("/models", True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_finds_the_metrics_of_overlays(overlay: str) -> None:
    manifests = render(KUSTOMIZE / "overlays" / overlay)
    monitor, service = one(manifests, "ServiceMonitor"), one(manifests, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["spec"]["endpoints"]} <= {each["name"] for each in service["spec"]["ports"]}


def test_the_gpu_overlay_asks_for_one_gpu_and_computes_on_it() -> None:
    manifests = render(KUSTOMIZE / "overlays" / "gpu")
    assert container(manifests)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert variables(manifests)["VOXPLAIN_DEVICE"] == "cuda"
    assert container(manifests)["image"].endswith("-gpu")


@pytest.mark.parametrize("overlay", ["base", "overlays/cpu", "overlays/gpu", "overlays/autoscale"])
def test_the_mtls_component_starts_a_server_that_asks_for_certificates(overlay: str, tmp_path: Path) -> None:
    plain, manifests = render(KUSTOMIZE / overlay), render_with(KUSTOMIZE / overlay, ["mtls"])
    told = variables(manifests)
    assert "VOXPLAIN_INSECURE" not in told
    (volume,) = [each for each in pod(manifests)["volumes"] if each["name"] == "tls"]
    (mount,) = [each for each in container(manifests)["volumeMounts"] if each["name"] == "tls"]
    assert volume["secret"]["secretName"] == "voxplain-tls"
    # The paths of the pod, moved to where this test can put files.
    for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA"):
        path = Path(told[f"VOXPLAIN_{name}"])
        assert path.parent == Path(mount["mountPath"])
        (tmp_path / path.name).write_text("")
        told[f"VOXPLAIN_{name}"] = str(tmp_path / path.name)
    settings = read_settings(["--models", str(tmp_path), "--host", "0.0.0.0"], told)
    assert settings.access.encrypted and settings.access.knows_callers and not settings.insecure
    assert "appProtocol" not in one(manifests, "Service")["spec"]["ports"][0]
    # What the overlay is for stays: its device, its resources, its replicas, its other variables.
    assert {name: value for name, value in variables(plain).items() if name != "VOXPLAIN_INSECURE"}.items() <= told.items()
    assert container(manifests)["resources"] == container(plain)["resources"]
    assert one(manifests, "Deployment")["spec"].get("replicas") == one(plain, "Deployment")["spec"].get("replicas")


def test_the_mtls_overlay_is_the_cpu_overlay_with_the_component() -> None:
    assert render(KUSTOMIZE / "overlays" / "mtls") == render_with(KUSTOMIZE / "overlays" / "cpu", ["mtls"])


def test_the_egress_component_opens_names_labelled_servers_and_the_collector_and_nothing_else() -> None:
    manifests = render_with(KUSTOMIZE / "overlays" / "cpu", ["egress"])
    policy = one(manifests, "NetworkPolicy", "voxplain-egress")["spec"]
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Egress"]
    assert "ingress" not in policy
    names, servers, collector = policy["egress"]
    assert {(each["port"], each["protocol"]) for each in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    # An empty selector of namespaces alone would open every pod: the label stands beside it, in one condition.
    assert servers == {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"voxplain.remote": "true"}}}]}
    assert collector["ports"] == [{"port": 4317}]
    # The others of the base stay as they are: what is not named here stays denied.
    test_selectors_select_the_pod_and_all_else_is_denied(manifests)


def test_the_cache_component_gives_the_server_a_folder_that_it_may_write(tmp_path: Path) -> None:
    manifests = render_with(KUSTOMIZE / "overlays" / "cpu", ["cache"])
    folder = variables(manifests)["VOXPLAIN_CACHE"]
    assert read_settings(["--models", str(tmp_path), "--host", "0.0.0.0"], variables(manifests)).cache == Path(folder)
    writable = {each["mountPath"]: each["name"] for each in container(manifests)["volumeMounts"] if not each.get("readOnly")}
    assert set(writable) == {"/tmp", folder}
    (volume,) = [each for each in pod(manifests)["volumes"] if each["name"] == writable[folder]]
    claim = one(manifests, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    # Old and new pods hold it at the same time while they roll.
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert pod(manifests)["securityContext"]["fsGroup"] == pod(manifests)["securityContext"]["runAsGroup"]


def test_the_autoscaler_follows_a_metric_that_the_server_has() -> None:
    manifests = render(KUSTOMIZE / "overlays" / "autoscale")
    scaler = one(manifests, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == one(manifests, "Deployment")["metadata"]["name"]
    assert "replicas" not in one(manifests, "Deployment")["spec"]
    names = {metric.name for metric in Metrics().registry.collect()}
    assert {each["pods"]["metric"]["name"] for each in scaler["metrics"]} <= names
