"""Everything an operator can set: arguments first, then VOXPLAIN_* variables, then safe defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from voxplain_server.access import Access, AccessRefused, check_access
from voxplain_server.models.engine_choice import EnginePreference
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess, RemoteAccessRefused

MIB = 1 << 20
GIB = 1 << 30

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")

_KEY_CHARACTERS = 32
_MAX_MESSAGE_BYTES = 2 * GIB - 1
_MAY_BE_ZERO = ("queue_length", "reload_seconds", "upload_buffer_bytes")
_OF_THE_MEMORY = {"max_in_flight_bytes": (3, "a third"), "check_memory_bytes": (2, "half")}
"""Limits whose default is a part of the container's memory."""


class SettingsRefused(ValueError):
    """A setting that cannot be; the message names it and the remedy."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call, and all calls together, may take. Each is an argument: max_tensors is --max-tensors."""

    max_declared_bytes: int = _setting(2 * GIB, "bytes of all tensors of one call")
    max_in_flight_bytes: int = _setting(4 * GIB, "bytes reserved by all calls together, inputs and maps to come")
    upload_buffer_bytes: int = _setting(144 * MIB, "memory kept ready for one incoming case, erased after each; 0: none")
    max_tensors: int = _setting(256, "tensors of one call")
    max_chunks: int = _setting(100_000, "chunks of one call")
    max_checkpoint_bytes: int = _setting(2 * MIB, "bytes of a checkpoint that a client hands back")
    max_inference_bytes: int = _setting(4 * MIB, "bytes of one ModelInfer message, request or answer")
    first_message_seconds: float = _setting(10.0, "seconds within which the spec must come")
    upload_grace_seconds: float = _setting(30.0, "seconds that an upload may take beyond its minimum rate")
    min_upload_bytes_per_second: float = _setting(64 * 1024.0, "slowest upload, on average, in bytes per second")
    send_stall_seconds: float = _setting(120.0, "seconds that a client may leave one message unread")
    queue_length: int = _setting(32, "calls that may wait besides those that compute")
    job_seconds: float = _setting(6 * 3600.0, "seconds of compute after which a job is ended")
    loaded_models: int = _setting(4, "models that one worker keeps loaded")
    drain_seconds: float = _setting(15.0, "seconds that running calls get to end after SIGTERM, before they end DRAINED")
    check_seconds: float = _setting(300.0, "seconds that checking one bundle may take")
    check_memory_bytes: int = _setting(4 * GIB, "resident memory of the process that checks bundles")
    reload_seconds: float = _setting(10.0, "seconds between two looks at the models folder; 0: it is read at the start only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `voxplain-server` was told.

    Attributes:
        models: folder of model bundles.
        host: address that all ports bind to.
        port, health_port, metrics_port: TCP ports, 0: any free one.
        workers: compute processes.
        inference_workers: further ones that run inferences only; 0: inferences wait in line with explanations.
        threads_per_worker: compute threads of each.
        device: where they compute.
        engine: which engine evaluates perturbed cases.
        cache: folder where it is kept what was measured of each model; None: it is measured at every start.
        reflection: whether the service describes itself to generic clients.
        insecure: whether plaintext may leave this host, and anybody may call.
        access: certificates, tokens and policy of the service port.
        remote: which inference servers bundles may name, and the certificates for them.
        checkpoint_key: authenticates checkpoints; replicas that take over from each other share it. Only from
            VOXPLAIN_CHECKPOINT_KEY, because arguments are seen by every process. None: random.
        limits: what calls may take.
    """

    models: Path
    host: str = "127.0.0.1"
    port: int = 50051
    health_port: int = 50052
    metrics_port: int = 9464
    workers: int = 1
    inference_workers: int = 0
    threads_per_worker: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    engine: EnginePreference = "auto"
    cache: Path | None = None
    reflection: bool = False
    insecure: bool = False
    access: Access = field(default_factory=Access)
    remote: RemoteAccess = NO_REMOTE
    checkpoint_key: bytes | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)


def available_cpus(cgroup: Path = CGROUP_CPU) -> int:
    """Processors that this process may use: its affinity, cut by the container's quota (cgroup v2); at least 1."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup.read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        return max(1, allowed)
    return max(1, allowed)


def available_memory(cgroup: Path = CGROUP_MEMORY) -> int:
    """Bytes of memory that this process may use: the machine's, cut by the container's limit (cgroup v2)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = cgroup.read_text().strip()
        return machine if limit == "max" else min(machine, int(limit))
    except (OSError, ValueError):
        return machine


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read settings; `--max-tensors 8` wins over VOXPLAIN_MAX_TENSORS=8.

    Raises:
        SettingsRefused: a value cannot be, or the port would be open to others without TLS or --insecure.
        SystemExit: arguments that argparse refuses, and --help.
    """
    parser = _parser(environ)
    given = parser.parse_args(list(argv))
    for name, (part, _) in _OF_THE_MEMORY.items():
        if getattr(given, name) is None:
            setattr(given, name, available_memory() // part)
    limits = Limits(**{each.name: getattr(given, each.name) for each in fields(Limits)})
    if given.models is None:
        raise SettingsRefused("name the folder of models: --models DIR or VOXPLAIN_MODELS")
    settings = Settings(
        models=given.models,
        host=given.host,
        port=given.port,
        health_port=given.health_port,
        metrics_port=given.metrics_port,
        workers=given.workers,
        inference_workers=given.inference_workers,
        threads_per_worker=given.threads_per_worker or max(1, available_cpus() // max(1, given.workers)),
        device=given.device,
        engine=given.engine,
        cache=given.cache,
        reflection=given.reflection,
        insecure=given.insecure,
        access=Access(**{each.name: getattr(given, each.name) for each in fields(Access)}),
        remote=_remote(given),
        checkpoint_key=environ["VOXPLAIN_CHECKPOINT_KEY"].encode() if environ.get("VOXPLAIN_CHECKPOINT_KEY") else None,
        limits=limits,
    )
    _check(settings)
    return settings


def read_remote(environ: Mapping[str, str]) -> RemoteAccess:
    """What VOXPLAIN_REMOTE_* say, for commands that read nothing else.

    Raises:
        SettingsRefused: a value cannot be.
    """
    return _remote(_parser(environ).parse_args([]))


def _remote(given: argparse.Namespace) -> RemoteAccess:
    access = RemoteAccess(
        endpoints=tuple(part.strip() for part in given.remote_endpoints.split(",") if part.strip()),
        ca=given.remote_ca,
        cert=given.remote_cert,
        key=given.remote_key,
    )
    try:
        access.check()
    except RemoteAccessRefused as refused:
        raise SettingsRefused(str(refused)) from None
    return access


def _check(settings: Settings) -> None:
    if not settings.models.is_dir():
        raise SettingsRefused("--models must name a folder that exists")
    if settings.workers < 1:
        raise SettingsRefused("--workers must be at least 1")
    if settings.inference_workers < 0:
        raise SettingsRefused("--inference-workers must be 0 or more")
    if settings.threads_per_worker < 1:
        raise SettingsRefused("--threads-per-worker must be at least 1")
    if settings.device not in ("cpu", "cuda"):
        raise SettingsRefused("--device must be cpu or cuda")
    if settings.engine not in get_args(EnginePreference):
        raise SettingsRefused("--engine must be auto, onnxruntime, torch or incremental")
    for name in ("port", "health_port", "metrics_port"):
        if not 0 <= getattr(settings, name) <= 65535:
            raise SettingsRefused(f"--{name.replace('_', '-')} must lie between 0 and 65535")
    for each in fields(Limits):
        value = getattr(settings.limits, each.name)
        if not value >= 0 or (value == 0 and each.name not in _MAY_BE_ZERO):
            raise SettingsRefused(f"--{each.name.replace('_', '-')} must be greater than 0")
    if settings.limits.max_inference_bytes > _MAX_MESSAGE_BYTES:
        raise SettingsRefused("--max-inference-bytes must stay below 2 GiB: no message of gRPC may be larger")
    if settings.checkpoint_key is not None and len(settings.checkpoint_key) < _KEY_CHARACTERS:
        raise SettingsRefused(f"VOXPLAIN_CHECKPOINT_KEY must have at least {_KEY_CHARACTERS} characters")
    try:
        check_access(settings.access, host=settings.host, insecure=settings.insecure)
    except AccessRefused as refused:
        raise SettingsRefused(str(refused)) from None


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxplain-server",
        description="Serve explanations of the models in a folder. Every argument is also a variable: --max-tensors is "
        "VOXPLAIN_MAX_TENSORS. `voxplain-server check DIR` tells what bundles can do.",
    )

    def add(name: str, convert: Callable[[str], Any], default: Any, text: str) -> None:
        variable = f"VOXPLAIN_{name.upper()}"
        # argparse converts a default that is text, and then names the argument in its message.
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=convert,
            default=environ.get(variable, default),
            help=text if default in (None, "") else f"{text} (default {default})",
        )

    add("models", Path, None, "folder of model bundles, <name>/<version>/")
    add("host", str, "127.0.0.1", "address to bind")
    add("port", int, 50051, "port of the service; 0: any free one")
    add("health_port", int, 50052, "port of grpc.health.v1; 0: any free one")
    add("metrics_port", int, 9464, "port of Prometheus metrics; 0: any free one")
    add("workers", int, 1, "compute processes")
    add("inference_workers", int, 0, "further ones for ModelInfer alone; 0: it waits in line with explanations")
    add("threads_per_worker", int, None, "compute threads of each worker (default: the container's processors, divided)")
    add("device", str, "cpu", "where workers compute: cpu, or cuda for an NVIDIA GPU")
    add("engine", str, "auto", "what evaluates perturbed cases: onnxruntime, torch, incremental, or auto for the fastest")
    add("cache", Path, None, "folder for what is measured of each model, once for a host (default: measured at every start)")
    add("tls_cert", Path, None, "PEM file of the server's certificate chain; read again when it changes")
    add("tls_key", Path, None, "PEM file of its private key")
    add("tls_client_ca", Path, None, "PEM file of the authorities of client certificates; each client must show one then")
    add("token_keys", Path, None, "JWKS file of the keys that sign bearer tokens; each call must carry one then")
    add("token_issuer", str, "", "iss of the tokens that are taken")
    add("token_audience", str, "", "aud of the tokens that are taken")
    add("policy", Path, None, "JSON file that says who may call which method (default: whoever is let in, every method)")
    add(
        "remote_endpoints", str, "", "inference servers that bundles may name: grpcs://host:port or grpc://host:port, by commas"
    )
    add("remote_ca", Path, None, "PEM file of the authorities of their certificates (default: the system's)")
    add("remote_cert", Path, None, "PEM file of the client certificate shown to them; read again for every call")
    add("remote_key", Path, None, "PEM file of its private key")
    for name, text in (
        ("reflection", "let generic clients ask for the contract"),
        ("insecure", "let plaintext leave this host, and anybody call: only where the network sees to both"),
    ):
        on = environ.get(f"VOXPLAIN_{name.upper()}", "").lower() in ("1", "true", "yes")
        parser.add_argument(f"--{name}", action="store_true", default=on, help=text)
    for each in fields(Limits):
        text = each.metadata["help"]
        if each.name in _OF_THE_MEMORY:
            add(each.name, int, None, f"{text} (default: {_OF_THE_MEMORY[each.name][1]} of the container's memory)")
        else:
            add(each.name, type(each.default), each.default, text)
    return parser
