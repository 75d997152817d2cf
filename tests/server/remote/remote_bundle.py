"""Bundles that name a remote model, made from those that hold a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bundles import TinyBundle


def remote_bundle(local: TinyBundle, models: Path, endpoint: str, *, model: str = "net", **remote: Any) -> TinyBundle:
    """The same bundle without its file: `<models>/far-<name>`."""
    metadata = json.loads((local.folder / "metadata.json").read_text())
    metadata.setdefault("voxplain", {})["remote"] = {"endpoint": endpoint, "model": model} | remote
    name = f"far-{local.name}"
    folder = models / name / local.version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return replace(local, models=models, folder=folder, name=name)
