"""The folder that `voxplain explain` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
from google.protobuf import json_format
from voxplain.v1 import explain_pb2

from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.events import MapReceived
from voxplain_client.imaging.nifti import Nifti, read_nifti, write_nifti
from voxplain_client.pictures.map_sketch import sketch_map
from voxplain_client.pictures.overview_row import OverviewMap
from voxplain_client.pictures.overview_text import is_partial, outcome_in_words

RECORD, IMPORTANCE, OVERVIEW = "record.json", "modality-importance.json", "overview.png"
INCOMPLETE, PARTIAL = "INCOMPLETE.txt", "PARTIAL.txt"

_KEYS = "Methods: "
_SUFFIXES = {
    explain_pb2.QUANTITY_ATTRIBUTION: "",
    explain_pb2.QUANTITY_STANDARD_ERROR: ".standard-error",
    explain_pb2.QUANTITY_COVERAGE: ".coverage",
}


class OutputFolder:
    """DIR/<key>/<modality>.nii.gz and what stands beside.

    A map is written when its method has ended, so that its file can say whether it is complete. While an explanation runs, and
    after one that was interrupted, INCOMPLETE.txt stands in the folder.

    Args:
        path: made if it is not there.
        volumes: the explained volumes by modality, in the model's order.
        overwrite: whether an earlier explanation there may be replaced; `begin` then removes what is known to be of it.
    """

    def __init__(self, path: Path, volumes: Mapping[str, Nifti], *, overwrite: bool = False) -> None:
        self.path = path
        self._overwrite = overwrite
        self._volumes = volumes
        self._waiting: dict[str, list[MapReceived]] = {}

    def check(self) -> None:
        """Refuse a folder that holds an explanation: two would stand mixed in it.

        Raises:
            UsageFault: naming the remedy.
        """
        if not self._overwrite and any((self.path / name).exists() for name in (RECORD, INCOMPLETE)):
            told = "the folder holds an explanation: choose another one, or give --overwrite to replace it"
            raise UsageFault("--out", told)

    def begin(self, keys: Iterable[str]) -> None:
        """Make the folder and remove what an earlier explanation left, so that nothing old can pass for new."""
        self.path.mkdir(parents=True, exist_ok=True)
        now = list(keys)
        before = self._keys_before()
        told = "This explanation is running, or was interrupted. There is no record of it."
        (self.path / INCOMPLETE).write_text(f"{told}\n{_KEYS}{' '.join(now)}\n")
        for name in (RECORD, IMPORTANCE, OVERVIEW):
            (self.path / name).unlink(missing_ok=True)
        for key in {*now, *before}:
            self._clear(key)
            folder = self._folder(key)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def take_map(self, received: MapReceived) -> None:
        """Keep a final map until its method ends; write a snapshot at once."""
        header = received.header
        if header.snapshot:
            self._write(received, mark="SNAPSHOT", note=f"SNAPSHOT after {header.evaluations_done} evaluations")
        else:
            self._waiting.setdefault(header.method_key, []).append(received)

    def end_method(self, result: explain_pb2.MethodResult) -> tuple[OverviewMap, ...]:
        """Write the method's maps, and sketch its attribution maps for the overview."""
        self._clear(result.method_key)
        drawn: list[OverviewMap] = []
        mark = "PARTIAL" if is_partial(result) else ""
        note = f"{outcome_in_words(result.outcome)}, {result.evaluations_done} of {result.evaluations_planned} evaluations"
        for received in self._waiting.pop(result.method_key, []):
            path = self._write(received, mark=mark, note=f"{mark} {note}".strip())
            if received.header.quantity == explain_pb2.QUANTITY_ATTRIBUTION:
                sketch = sketch_map(received.array, received.geometry, received.header.modalities)
                drawn.append(OverviewMap(sketch=sketch, load=partial(_load, path, received.array.shape)))
        if mark and drawn:
            (self._folder(result.method_key) / PARTIAL).write_text(f"These maps are PARTIAL: {note}. {result.description}\n")
        return tuple(drawn)

    def finish(self, record: explain_pb2.ExplanationRecord) -> None:
        """Write the record and the importance of modalities."""
        text = json_format.MessageToJson(record, preserving_proto_field_name=True, indent=2, sort_keys=True)
        (self.path / RECORD).write_text(text + "\n", encoding="utf-8")
        importance = {result.method_key: _importance(result) for result in record.results}
        (self.path / IMPORTANCE).write_text(json.dumps(importance, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (self.path / INCOMPLETE).unlink(missing_ok=True)

    def _keys_before(self) -> list[str]:
        """The methods of the explanation that stands here, as far as it says so."""
        keys: list[str] = []
        with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
            keys += [held["method_key"] for held in json.loads((self.path / RECORD).read_text(encoding="utf-8"))["results"]]
        with suppress(OSError, ValueError):
            lines = (self.path / INCOMPLETE).read_text(encoding="utf-8").splitlines()
            keys += [key for line in lines if line.startswith(_KEYS) for key in line.removeprefix(_KEYS).split()]
        return keys

    def _folder(self, key: str) -> Path:
        # A key comes back from the server: it must not lead out of the folder.
        return self.path / re.sub(r"[^a-z0-9-]", "_", key)

    def _clear(self, key: str) -> None:
        folder = self._folder(key)
        for old in [*folder.glob("*.nii.gz"), folder / PARTIAL]:
            old.unlink(missing_ok=True)

    def _write(self, received: MapReceived, *, mark: str, note: str) -> Path:
        header = received.header
        folder = self._folder(header.method_key)
        folder.mkdir(exist_ok=True)
        suffix = _SUFFIXES.get(header.quantity, ".other") + (".snapshot" if header.snapshot else "")
        path = folder / f"{self._stem(header.modalities)}{suffix}.nii.gz"
        like = self._volumes.get(next(iter(header.modalities), "")) or next(iter(self._volumes.values()))
        description = f"voxplain {header.method_key[:24]} {note}"
        # Written aside and then renamed: an interrupt must leave whole files only.
        aside = path.with_name(f".writing-{path.name}")
        try:
            write_nifti(aside, received.array, like=like, geometry=received.geometry, description=description, mark=mark)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        return path

    def _stem(self, modalities: Sequence[str]) -> str:
        if len(modalities) == 1:
            name = modalities[0]
        else:
            name = "shared" if len(modalities) == len(self._volumes) else "-".join(["shared", *modalities])
        return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _load(path: Path, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return read_nifti(path, field="map").volume.voxels.reshape(shape)


def _importance(result: explain_pb2.MethodResult) -> dict[str, Any]:
    positive = sum(row.sum_positive for row in result.modality_importance)
    found: dict[str, Any] = {
        row.modality: {
            "sum_positive": row.sum_positive,
            "sum": row.sum,
            "sum_absolute": row.sum_absolute,
            "share_of_positive": row.sum_positive / positive if positive > 0 else None,
        }
        for row in result.modality_importance
    }
    for held in result.modality_values:
        found[held.modality] = {"value": held.value}
    return {"outcome": outcome_in_words(result.outcome), "partial": is_partial(result), "modalities": found}
