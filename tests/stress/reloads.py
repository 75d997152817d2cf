"""New versions while calls run: no call fails, and each map belongs to the digest that it names."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import grpc
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc

from tests.bundles import TinyBundle, early_fusion_classes
from tests.oracle import settle_server
from tests.serving import RunningServer
from tests.stress.caller import Told, begin, case_of, finish, occlusion, warm_up
from tests.stress.row import Row, Scale

RELOADS = 100
CALLERS = 2
LOOK_SECONDS = 0.2
PICKED_UP_SECONDS = 60.0


def reload_under_load(scale: Scale) -> list[Row]:
    """Publish one version after another and take the older ones away, while callers ask for the default version."""
    count, stop, told = scale.of(RELOADS, least=3), threading.Event(), list[Told]()
    with tempfile.TemporaryDirectory() as folder:
        models, staging = Path(folder) / "models", Path(folder) / "staging"
        models.mkdir()
        bundle = _publish(models, staging, 1)
        arguments = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reload-seconds", str(LOOK_SECONDS))
        with RunningServer(models, arguments) as server, grpc.insecure_channel(server.address) as channel:
            warm_up(server, bundle)
            callers = [threading.Thread(target=_call, args=(channel, bundle, stop, told)) for _ in range(CALLERS)]
            for each in callers:
                each.start()
            picked_up = 0
            for version in range(2, count + 2):
                _publish(models, staging, version)
                picked_up += _is_default(channel, bundle.name, str(version))
                if version > 2:
                    shutil.rmtree(models / bundle.name / str(version - 2))
            stop.set()
            for each in callers:
                each.join()
            settle_server(server.metrics_url, server.pid)
    maps: dict[str, set[str]] = defaultdict(set)
    versions: dict[str, set[str]] = defaultdict(set)
    for call in told:
        if call.record is not None:
            maps[call.record.model_digest].add(repr(sorted(call.maps.items())))
            versions[call.record.version].add(call.record.model_digest)
    failed = [f"{call.code.name} {call.reason}" for call in told if call.record is None]
    mixed = sum(len(found) > 1 for found in [*maps.values(), *versions.values()])
    distinct = len({next(iter(found)) for found in maps.values()})
    return [
        Row(
            what="versions replaced while calls run",
            count=str(count),
            goal="no failed call; each map belongs to the digest it names",
            figure=f"{picked_up} picked up; {len(told)} calls on {len(maps)} digests, {len(failed)} failed"
            f"{' (' + failed[0] + ')' if failed else ''}, {mixed} digests or versions with two answers",
            passed=not failed and not mixed and picked_up == count and distinct == len(maps),
        )
    ]


def _publish(models: Path, staging: Path, version: int) -> TinyBundle:
    made = early_fusion_classes(staging, version=str(version), modalities=2, seed=version)
    target = models / made.name / str(version)
    target.parent.mkdir(exist_ok=True)
    made.folder.rename(target)
    return made


def _is_default(channel: grpc.Channel, name: str, version: str) -> bool:
    stub, until = catalog_pb2_grpc.CatalogServiceStub(channel), time.monotonic() + PICKED_UP_SECONDS
    while time.monotonic() < until:
        if stub.GetModel(catalog_pb2.GetModelRequest(name=name)).model.version == version:
            return True
        time.sleep(0.05)
    return False


def _call(channel: grpc.Channel, bundle: TinyBundle, stop: threading.Event, told: list[Told]) -> None:
    messages = case_of(bundle, [occlusion(6, 5)])
    while not stop.is_set():
        told.append(finish(begin(channel, messages, timeout_s=120)))
