"""Where a model is that another server holds, and how it is asked: what workers need to know, and nothing secret."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """One model of one inference server.

    Attributes:
        endpoint: grpcs://host:port or grpc://host:port.
        name, version: what it is called there; an empty version leaves the choice to the server.
        inputs: names of the remote tensors, in the order of Model.inputs.
        output: name of the remote tensor that is explained.
        reported: SHA-256 of what the remote server tells about the model, in lower-case hexadecimal.
        fixed_batch: cases that every request must hold; None: any number.
        max_batch: most cases in one request; None: as many as we would take.
        requests_in_flight: requests under way at a time.
        request_seconds: deadline of one request.
        retry_share, retry_floor: requests of one job and worker that may be sent again: the floor, and this share of all.
        max_response_bytes: largest answer that is taken.
    """

    endpoint: str
    name: str
    version: str
    inputs: tuple[str, ...]
    output: str
    reported: str
    fixed_batch: int | None
    max_batch: int | None
    requests_in_flight: int
    request_seconds: float
    retry_share: float
    retry_floor: int
    max_response_bytes: int

    def batch_of(self, wanted: int) -> int:
        """Cases in one request where `wanted` would be ours to choose."""
        if self.fixed_batch is not None:
            return self.fixed_batch
        return wanted if self.max_batch is None else min(wanted, self.max_batch)
