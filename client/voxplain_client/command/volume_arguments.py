"""Files of a command line: `--volume t1=FILE`, `--labels FILE`, `--background t1=FILE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from voxplain.v1 import catalog_pb2
from voxplain.volume import Volume

from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.imaging.nifti import Nifti, drop_third_axis, read_nifti


def read_volumes(texts: Sequence[str], model: catalog_pb2.Model, *, option: str, complete: bool = True) -> dict[str, Nifti]:
    """Read MODALITY=FILE for every modality of the model, in the model's order.

    Args:
        complete: whether every modality must be there.

    Raises:
        UsageFault: a modality is missing, unknown or there twice.
        InvalidTensor: a file cannot be read.
    """
    paths: dict[str, Path] = {}
    for modality, path in _pairs(texts, model, option=option):
        if modality in paths:
            raise UsageFault(f"{option} {modality}", "this modality is there twice")
        paths[modality] = path
    missing = [modality.name for modality in model.modalities if modality.name not in paths]
    if missing and complete:
        raise UsageFault(option, f"the model reads {_names(model)}; missing: {', '.join(missing)}")
    return {
        modality.name: read_case_file(paths[modality.name], modality, option=f"{option} {modality.name}")
        for modality in model.modalities
        if modality.name in paths
    }


def read_background(texts: Sequence[str], model: catalog_pb2.Model) -> list[dict[str, Volume]]:
    """Read background cases: the first file of each modality is of the first case, the second of the second, and so on.

    Raises:
        UsageFault: a modality is unknown, or has fewer files than others.
    """
    option = "--background"
    by_modality: dict[str, list[str]] = {modality.name: [] for modality in model.modalities}
    for modality, path in _pairs(texts, model, option=option):
        by_modality[modality].append(f"{modality}={path}")
    cases = max((len(files) for files in by_modality.values()), default=0)
    short = [modality for modality, files in by_modality.items() if len(files) < cases]
    if short:
        raise UsageFault(option, f"each case needs every modality; {', '.join(short)} has fewer files than others")
    return [
        volumes_of(read_volumes([files[case] for files in by_modality.values()], model, option=option)) for case in range(cases)
    ]


def read_labels(texts: Sequence[str], model: catalog_pb2.Model) -> Volume | Mapping[str, Volume] | None:
    """Read `--labels`: one FILE for all modalities, or MODALITY=FILE for each.

    Raises:
        UsageFault: both kinds, or several shared files.
    """
    if not texts:
        return None
    names = {modality.name for modality in model.modalities}
    shared = [text for text in texts if text.partition("=")[0] not in names]
    if not shared:
        return volumes_of(read_volumes(texts, model, option="--labels", complete=False))
    if len(texts) > 1:
        raise UsageFault("--labels", f"write one file for all, or MODALITY=FILE for each of {_names(model)}")
    return read_case_file(Path(shared[0]), model.modalities[0], option="--labels").volume


def read_case_file(path: Path, modality: catalog_pb2.Modality, *, option: str) -> Nifti:
    """Read one file on the grid of a modality; a 2D model takes a volume of one slice."""
    nifti = read_nifti(path, field=option)
    return drop_third_axis(nifti) if len(modality.shape) == 2 else nifti


def volumes_of(files: Mapping[str, Nifti]) -> dict[str, Volume]:
    """The volumes alone."""
    return {modality: nifti.volume for modality, nifti in files.items()}


def _pairs(texts: Sequence[str], model: catalog_pb2.Model, *, option: str) -> Iterable[tuple[str, Path]]:
    names = {modality.name for modality in model.modalities}
    for text in texts:
        modality, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageFault(option, "write MODALITY=FILE, for example t1=t1.nii.gz")
        if modality not in names:
            raise UsageFault(f"{option} {modality}", f"the model reads {_names(model)}")
        yield modality, Path(path)


def _names(model: catalog_pb2.Model) -> str:
    return ", ".join(modality.name for modality in model.modalities)
