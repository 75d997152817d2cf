"""What was measured of a model on this host, kept from one start of the server to the next.

The choice of an engine then stays the same, and so do the bytes of maps, however busy the host is at the next start.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxplain_server.models.description import from_json, to_json
from voxplain_server.models.engine_choice import EngineChoice

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one look at a model on one host has shown.

    Attributes:
        evaluation_seconds: of one evaluation by ONNX Runtime.
        gradient_seconds: of one forward and backward pass of the twin; 0: there is none.
        slic_seconds_per_voxel: of making supervoxels.
        engine_choice: which engine evaluates perturbed cases.
    """

    evaluation_seconds: float
    gradient_seconds: float
    slic_seconds_per_voxel: float
    engine_choice: EngineChoice


def measurement_key(facts: Mapping[str, str]) -> str:
    """Names all that a measurement depends on: the model, the processor, threads, versions, the operator's wish."""
    lines = "\n".join(f"{name}={value}" for name, value in sorted(facts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


class MeasurementCache:
    """One small file for each model and host in a folder.

    Args:
        folder: where they lie; it is made when the first is kept. None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, key: str) -> Measurement | None:
        """What was kept; None: nothing, or nothing that this version can read."""
        if self._folder is None:
            return None
        try:
            return from_json(Measurement, self._path(key).read_bytes())
        except (OSError, ValueError):
            return None

    def keep(self, key: str, measured: Measurement) -> None:
        """Keep a measurement, whole or not at all. A folder that cannot be written to is told and costs nothing else."""
        if self._folder is None:
            return
        path = self._path(key)
        unfinished = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(to_json(measured))
            unfinished.replace(path)
        except OSError:
            log.warning("cache_unwritable_measured_again", extra={"fields": {}})

    def _path(self, key: str) -> Path:
        return (self._folder or Path()) / f"{key}.json"
