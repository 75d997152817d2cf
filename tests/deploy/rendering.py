"""Renders the manifests as `kubectl kustomize` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
BASE = KUSTOMIZE / "base"


def render(folder: Path) -> list[dict[str, Any]]:
    """Every manifest of a base or an overlay; skips the test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here to render manifests")
    done = subprocess.run([kubectl, "kustomize", str(folder)], check=True, capture_output=True, text=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


def render_with(folder: Path, components: Sequence[str]) -> list[dict[str, Any]]:
    """A base or an overlay with components on top, as a site's own overlay takes them."""
    wanted = {
        "namespace": "voxplain",
        "resources": [folder],
        "components": [KUSTOMIZE / "components" / name for name in components],
    }
    with tempfile.TemporaryDirectory() as made:
        return render_site(wanted, Path(made))


def render_site(kustomization: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A kustomization of a folder elsewhere; `resources` and `components` lead from it to folders of this repository."""
    site = folder.resolve()
    paths = {key: [os.path.relpath(each, site) for each in kustomization[key]] for key in ("resources", "components")}
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (site / "kustomization.yaml").write_text(yaml.safe_dump(head | dict(kustomization) | paths))
    return render(site)
