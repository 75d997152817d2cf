"""Finds model bundles on disk, in both layouts:

<models>/<name>/<version>/   model.onnx + metadata.json
                             or models/*.onnx + configs/metadata.json, as MONAI lays them out
<models>/<name>/             a MONAI bundle without a folder for its version: metadata.json states it
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from voxplain_server.models.bundle_place import BundlePlace, onnx_files
from voxplain_server.models.metadata import read_version

_NUMBER = re.compile(r"v?\d+(\.\d+)*")


def find_bundles(folder: Path) -> list[BundlePlace]:
    """Find every version below a models folder, a model's folder or a version's folder.

    Folders that do not look like a bundle are passed over; whether a bundle can be served is for `load_model` to say.

    Returns:
        By name, and for each name the highest version first.
    """
    folder = folder.resolve()
    if looks_like_bundle(folder):
        places = [_place(folder)]
    else:
        children = _subfolders(folder)
        is_of_one_model = any(_NUMBER.fullmatch(child.name) and not _versions(child) for child in children)
        places = _versions(folder) if is_of_one_model else [place for child in children for place in _of_model(child)]
    ordered = sorted(places, key=lambda place: version_key(place.version), reverse=True)
    return sorted(ordered, key=lambda place: place.name)


def default_version(places: Iterable[BundlePlace], name: str) -> BundlePlace | None:
    """The highest version of a model, or None where there is none."""
    return max((place for place in places if place.name == name), key=lambda place: version_key(place.version), default=None)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions: numbers count as numbers (10 is above 9), and are above words."""
    parts = re.findall(r"\d+|[^\d._-]+", version)
    return tuple((1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in parts)


def looks_like_bundle(folder: Path) -> bool:
    """Whether a folder holds a model or its metadata."""
    files = (folder / "model.onnx", folder / "metadata.json", folder / "configs" / "metadata.json")
    return any(path.is_file() for path in files) or bool(onnx_files(folder / "models"))


def _of_model(folder: Path) -> list[BundlePlace]:
    return [_place(folder)] if looks_like_bundle(folder) else _versions(folder)


def _versions(folder: Path) -> list[BundlePlace]:
    if looks_like_bundle(folder):
        return []
    children = [child for child in _subfolders(folder) if looks_like_bundle(child) or _NUMBER.fullmatch(child.name)]
    return [BundlePlace(folder.name, child.name, child) for child in children]


def _place(folder: Path) -> BundlePlace:
    if _NUMBER.fullmatch(folder.name):
        return BundlePlace(folder.parent.name, folder.name, folder)
    place = BundlePlace(folder.name, "", folder)
    return BundlePlace(folder.name, read_version(place.metadata_path()) or "1", folder)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
