"""What deploy/README.md tells to write and to apply can be written and applied."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.rendering import KUSTOMIZE, ROOT, render, render_site

README = (ROOT / "deploy" / "README.md").read_text()
VOLUME = ROOT / "deploy" / "models-volume.yaml"
SITE = KUSTOMIZE / "overlays" / "site"


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "autoscale"])
def test_an_overlay_of_ones_own_renders_with_ones_own_registry_and_the_tag_of_the_overlay(overlay: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    told = yaml.safe_load(textwrap.dedent(block))
    assert (told.pop("apiVersion"), told.pop("kind")) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    told["resources"] = [SITE / each.replace("cpu", overlay) for each in told["resources"]]
    told["components"] = [SITE / each for each in told["components"]]
    site = _containers(render_site(told, tmp_path))
    own = _containers(render(KUSTOMIZE / "overlays" / overlay))
    assert [each["image"] for each in site] == [f"REG/{each['image']}" for each in own]


def test_every_overlay_component_and_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:overlays|components)/[a-z]+)`", README))
    there = {f"{each.parent.name}/{each.name}" for part in ("overlays", "components") for each in (KUSTOMIZE / part).iterdir()}
    # Whoever followed the page has an overlay more.
    assert named == there - {"overlays/site"}
    for path in re.findall(r"kubectl apply -[fk] (deploy/[\w/.-]+)", README):
        assert (ROOT / path).exists() or ROOT / path == SITE, path


def test_the_volume_of_models_is_the_one_that_the_overlays_mount() -> None:
    claim, writer = yaml.safe_load_all(VOLUME.read_text())
    (deployment,) = [each for each in render(KUSTOMIZE / "overlays" / "cpu") if each["kind"] == "Deployment"]
    for each in (claim, writer):
        kubernetes_validate.validate(each, "1.33", strict=True)
        assert each["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    mounted = [each["persistentVolumeClaim"]["claimName"] for each in _claims(deployment["spec"]["template"]["spec"])]
    assert mounted == [each["persistentVolumeClaim"]["claimName"] for each in _claims(writer["spec"])]
    assert mounted == [claim["metadata"]["name"]]


def test_the_pod_that_copies_models_keeps_to_the_standard_that_the_namespace_enforces() -> None:
    _, writer = yaml.safe_load_all(VOLUME.read_text())
    context, (container,) = writer["spec"]["securityContext"], writer["spec"]["containers"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # The server's own user: what is copied is what it may read.
    assert context["runAsUser"] == context["fsGroup"] == 65532
    assert writer["spec"]["restartPolicy"] == "Never"


def _containers(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        container
        for each in manifests
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
    ]


def _claims(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in spec["volumes"] if "persistentVolumeClaim" in each]
