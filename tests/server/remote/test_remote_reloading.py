"""A model that another server holds is looked at again, though no file here changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxplain_server.models.remote_access import RemoteAccess
from voxplain_server.workers import reloading
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.reloading import Reloader

from tests import bundles
from tests.server.remote.inference_server import InferenceServer, serving
from tests.server.remote.remote_bundle import remote_bundle


async def test_another_model_at_the_other_server_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "REMOTE_SECONDS", 0.0)
    local = bundles.early_fusion_classes(tmp_path / "local")
    server = InferenceServer(local.folder / "model.onnx")
    with serving(server) as endpoint:
        far = remote_bundle(local, tmp_path / "far", endpoint)
        reloader = Reloader(tmp_path / "far", settings=PoolSettings(remote=RemoteAccess(endpoints=(endpoint,))))
        await reloader.fill()
        first = reloader.catalog.find(far.name)
        await reloader.look()
        assert reloader.catalog.find(far.name) is first
        server.version = "4"
        await reloader.look()
        second = reloader.catalog.find(far.name)
        assert second.model.digest != first.model.digest
    # An outage takes nothing away: calls tell it themselves.
    await reloader.look()
    assert reloader.catalog.find(far.name) is second
