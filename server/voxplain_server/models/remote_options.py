"""The "remote" object of metadata.json: a model that another inference server holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from voxplain_server.models.json_object import JsonObject
from voxplain_server.models.remote_access import ENDPOINT, MAX_ENDPOINT

REMOTE_KEYS = (
    "batch_size",
    "endpoint",
    "inputs",
    "max_response_bytes",
    "model",
    "output",
    "request_seconds",
    "requests_in_flight",
    "retry_floor",
    "retry_share",
    "version",
)
MAX_NAME = 256
DEFAULT_REQUESTS_IN_FLIGHT = 4
DEFAULT_REQUEST_SECONDS = 60.0
DEFAULT_RETRY_SHARE = 0.5
DEFAULT_RETRY_FLOOR = 20
DEFAULT_MAX_RESPONSE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """What a bundle states about its remote model.

    Attributes:
        endpoint: grpcs://host:port, or grpc://host:port for plaintext.
        model, version: what it is called there; an empty version leaves the choice to the server.
        inputs: names of the remote tensors by the names of our inputs; an input that is not named has one name on both sides.
        output: name of the remote tensor that is explained; empty: as ours.
        batch_size: most cases in one request; None: as many as we would take.
        requests_in_flight: requests under way at a time.
        request_seconds: deadline of one request.
        retry_share, retry_floor: requests of one job and worker that may be sent again: the floor, and this share of all.
        max_response_bytes: largest answer that is taken.
    """

    endpoint: str
    model: str
    version: str = ""
    inputs: Mapping[str, str]
    output: str = ""
    batch_size: int | None = None
    requests_in_flight: int = DEFAULT_REQUESTS_IN_FLIGHT
    request_seconds: float = DEFAULT_REQUEST_SECONDS
    retry_share: float = DEFAULT_RETRY_SHARE
    retry_floor: int = DEFAULT_RETRY_FLOOR
    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES


def parse_remote(whole: JsonObject) -> RemoteOptions | None:
    """Read the object; None where there is none.

    Raises:
        ModelRefused: METADATA_INVALID, with the key at fault.
    """
    if not whole.has("remote"):
        return None
    remote = whole.object("remote")
    remote.only(REMOTE_KEYS)
    endpoint = remote.text("endpoint")
    if len(endpoint) > MAX_ENDPOINT or not ENDPOINT.fullmatch(endpoint):
        remote.refuse("must be grpcs://host:port, or grpc://host:port for plaintext", "endpoint")
    floor = remote.integer("retry_floor", low=0, high=10_000)
    return RemoteOptions(
        endpoint=endpoint,
        model=_name(remote, "model") or remote.refuse("must name the model as the remote server calls it", "model"),
        version=_name(remote, "version"),
        inputs={name: _name(remote.object("inputs"), name) for name in remote.object("inputs").values},
        output=_name(remote, "output"),
        batch_size=remote.integer("batch_size", low=1, high=1024),
        requests_in_flight=remote.integer("requests_in_flight", low=1, high=64) or DEFAULT_REQUESTS_IN_FLIGHT,
        request_seconds=remote.number("request_seconds", above=0.0, below=3600.0) or DEFAULT_REQUEST_SECONDS,
        retry_share=_share(remote),
        retry_floor=DEFAULT_RETRY_FLOOR if floor is None else floor,
        max_response_bytes=remote.integer("max_response_bytes", low=1 << 10, high=1 << 30) or DEFAULT_MAX_RESPONSE_BYTES,
    )


def _name(remote: JsonObject, key: str) -> str:
    name = remote.text(key)
    if len(name) > MAX_NAME or not name.isprintable():
        remote.refuse(f"must be printable text of at most {MAX_NAME} characters", key)
    return name


def _share(remote: JsonObject) -> float:
    share = remote.number("retry_share", above=-1e-9, below=10.0)
    return DEFAULT_RETRY_SHARE if share is None else max(share, 0.0)
