"""Models that other projects' servers hold, explained: the maps are those of the local engine on the same file."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import bundles
from tests.bundles import TinyBundle
from tests.neighbours.environment import FOREIGN, Environment
from tests.neighbours.neighbour import Neighbour, Outcome
from tests.server.remote.remote_bundle import remote_bundle
from tests.server.remote.test_remote_jobs import PERTURBATIONS, check_maps, checked, explained, pool_at
from tests.server.workers.calling import Answer
from tests.serving import RunningServer

KSERVE = Environment("kserve", ("kserve==0.21.0", "onnxruntime"))
MLSERVER = Environment("mlserver", ("mlserver==1.7.1", "onnxruntime"))
_READY_SECONDS = 120.0


def of_kserve(scratch: Path) -> Iterator[Outcome]:
    """KServe's ModelServer with a custom model that tells nothing of its shapes."""
    KSERVE.make()
    local, ports = bundles.late_fusion(scratch), _free_ports(2)
    told = {"file": str(local.folder / "model.onnx"), "grpc_port": ports[0], "http_port": ports[1]}
    with _running([KSERVE.program(), "-P", str(FOREIGN / "kserve_model.py"), json.dumps(told)], ports[0], scratch):
        yield _compare(local, scratch, f"grpc://127.0.0.1:{ports[0]}", "net")


def of_mlserver(scratch: Path) -> Iterator[Outcome]:
    """MLServer with a runtime of our own, which tells the shapes."""
    MLSERVER.make()
    local, ports, folder = bundles.early_fusion_classes(scratch), _free_ports(3), scratch / "mlserver"
    folder.mkdir()
    shutil.copy(FOREIGN / "mlserver_runtime.py", folder)
    settings = {"host": "127.0.0.1", "grpc_port": ports[0], "http_port": ports[1], "metrics_port": ports[2]}
    (folder / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0}))
    shape = [-1, len(local.shapes), *next(iter(local.shapes.values()))]
    model = {
        "name": "net",
        "implementation": "mlserver_runtime.Net",
        "parameters": {"uri": str(local.folder / "model.onnx"), "version": "v1"},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": shape}],
        "outputs": [{"name": "pred", "datatype": "FP32", "shape": [-1, 2]}],
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    with _running([MLSERVER.program("mlserver"), "start", str(folder)], ports[0], scratch):
        yield _compare(local, scratch, f"grpc://127.0.0.1:{ports[0]}", "net")


def of_voxplain(scratch: Path) -> Iterator[Outcome]:
    """voxplain's own port."""
    local = bundles.early_fusion_classes(scratch)
    with RunningServer(local.models, ["--workers", "1", "--max-inference-bytes", str(64 << 20)]) as server:
        yield _compare(local, scratch, f"grpc://{server.address}", local.name)


def _compare(local: TinyBundle, scratch: Path, endpoint: str, model: str) -> Outcome:
    title = f"{len(PERTURBATIONS)} perturbation methods give the maps of the local engine"
    far = remote_bundle(local, scratch / "far", endpoint, model=model)
    shutil.copytree(local.folder, scratch / "far" / local.name / local.version)
    catalog = checked(scratch / "far", endpoint)
    refused = [f"{each.name}: {each.version.reason}" for each in catalog.refusals]
    if refused:
        return Outcome(title, "; ".join(refused))

    async def both() -> tuple[Answer, Answer]:
        async with pool_at(catalog, endpoint) as pool:
            return await explained(pool, far, catalog, PERTURBATIONS), await explained(pool, local, catalog, PERTURBATIONS)

    try:
        check_maps(*asyncio.run(both()))
    except AssertionError as fault:
        return Outcome(title, f"another map: {fault}")
    return Outcome(title)


@contextmanager
def _running(command: Sequence[str], port: int, folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[None]:
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(port, process, log.name)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: str) -> None:
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not open its port: {Path(log).read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


EXPLAINED_ELSEWHERE = (
    Neighbour("kserve", of_kserve),
    Neighbour("mlserver", of_mlserver),
    Neighbour("voxplain", of_voxplain),
)
