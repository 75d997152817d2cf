"""`voxplain-server check DIR`: tells in plain words what bundles can do, and what to change where they cannot."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from voxplain.v1 import catalog_pb2, explain_pb2

from voxplain_server.models.model import OutputKind
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess
from voxplain_server.settings import available_cpus, available_memory
from voxplain_server.workers.catalog import Catalog, CatalogEntry, Refusal
from voxplain_server.workers.checking import check_models
from voxplain_server.workers.pool_settings import PoolSettings


def main(path: Path, remote: RemoteAccess = NO_REMOTE) -> int:
    """Check every bundle below a models folder, a model or a version, and print what was found.

    Args:
        path: the folder.
        remote: which inference servers bundles may name.

    Returns:
        1 where a bundle was refused or none was found, else 0.
    """
    if not path.is_dir():
        sys.stdout.write("There is no such folder.\n")
        return 1
    # The report says it better than the log's lines between.
    logging.getLogger("voxplain_server").addHandler(logging.NullHandler())
    settings = PoolSettings(threads_per_worker=available_cpus(), check_memory_bytes=available_memory() // 2, remote=remote)
    catalog = asyncio.run(check_models(path, settings=settings))
    sys.stdout.write("\n".join(report(catalog)) + "\n")
    return 1 if catalog.refusals or not catalog.entries else 0


def report(catalog: Catalog) -> Iterator[str]:
    """The report, line by line."""
    if not catalog.entries and not catalog.refusals:
        yield "No bundle is there: a version's folder holds model.onnx and metadata.json, or models/ and configs/ of MONAI."
    for entry in catalog.entries:
        yield from _told(entry)
        yield ""
    for refusal in catalog.refusals:
        yield from _refused(refusal)
        yield ""
    yield f"{len(catalog.entries)} can be served, {len(catalog.refusals)} cannot."


def _told(entry: CatalogEntry) -> Iterator[str]:
    model, traits, told = entry.model, entry.traits, entry.description
    yield f"{model.name}, version {model.version}" + (f": {model.description}" if model.description else "")
    fusion = "each has an input of its own" if model.late_fusion else "channels of one input"
    yield f"  Modalities ({fusion}):" if len(model.modalities) > 1 else "  Modality:"
    for modality in told.modalities:
        yield f"    {_modality(modality)}"
    yield f"  Answers {_answer(entry)}."
    batches = "several perturbed cases at a time" if model.batched else "one perturbed case at a time: its batch axis is fixed"
    yield f"  A whole pass takes {1000 * traits.evaluation_seconds:.3g} ms on this host; {batches}."
    yield f"  {_engine(entry)}"
    yield f"  {_twin(entry)}"
    if traits.default_cam_layers:
        yield f"  Grad-CAM reads {', '.join(traits.default_cam_layers)}; it could read {', '.join(traits.cam_layers)}."
    working = [each.method for each in told.methods if each.available]
    yield f"  Methods that work ({len(working)}): {', '.join(working)}."
    for each in told.methods:
        verdict = "with limits" if each.available else "does not work"
        for reason in each.reasons:
            yield f"  {each.method} {verdict}: {reason.code}. {_sentence(reason.description)}"
    for caution in told.cautions:
        yield f"  Caution {caution.code}. {_sentence(caution.description)}"


def _modality(modality: catalog_pb2.Modality) -> str:
    shape = " x ".join(str(size) if size else "any" for size in modality.shape)
    spacing = " x ".join(f"{size:g}" for size in modality.spacing_mm)
    parts = [
        f"{shape} voxels",
        f"orientation {modality.orientation}" if modality.orientation else "orientation not stated",
        f"spacing {spacing} mm" if spacing else "spacing not stated",
        f"normalised by {modality.normalisation}" if modality.normalisation else "voxels as they are",
        f"otherwise {modality.fit}" if modality.fit else "anything else is refused",
    ]
    return f"{modality.name}: {'; '.join(parts)}"


def _answer(entry: CatalogEntry) -> str:
    output = entry.model.output
    scales = [explain_pb2.ScoreScale.Name(scale).removeprefix("SCORE_SCALE_").lower() for scale in entry.description.scales]
    named = ", ".join(output.classes)
    kinds = {
        OutputKind.CLASSES: f"a score for each class: {named}",
        OutputKind.SIGMOID: f"one sigmoid output: {named}",
        OutputKind.SCALAR: "one number",
        OutputKind.SEGMENTATION: f"a class for every voxel: {named}",
    }
    threshold = "" if output.decision_threshold is None else f", decided at {output.decision_threshold:g}"
    return f"{kinds[output.kind]}{threshold}; explained as {' or '.join(scales)}"


def _engine(entry: CatalogEntry) -> str:
    choice = entry.traits.engine_choice
    told = f"Perturbed cases are evaluated by {entry.engine}"
    if choice is None:
        return f"{told}."
    others = [name for name in choice.available if name != entry.engine]
    also = f" A call may pin {', '.join(others[:-1]) + ' or ' * (len(others) > 1) + others[-1]}." if others else ""
    parity = ""
    if choice.difference is not None:
        far = f"differ by {choice.difference:.1e} of the largest effect"
        parity = f" The engines {far if choice.difference else 'agree up to the rounding of a score'}."
    return f"{told}: {choice.reason}.{parity}{also}"


def _twin(entry: CatalogEntry) -> str:
    traits = entry.traits
    if traits.remote:
        return "No differentiable copy: another server holds the model. Gradient methods do not work."
    if traits.unsupported_operators:
        return (
            f"No differentiable copy: it cannot read {', '.join(traits.unsupported_operators)}. Gradient methods do not work."
        )
    if traits.twin_parity is None:
        return "The differentiable copy could not answer a random case. Gradient methods do not work."
    agrees = "agrees with" if traits.has_twin else "differs too much from"
    return (
        f"The differentiable copy {agrees} ONNX Runtime: largest relative difference {traits.twin_parity:.1e}, "
        f"at most {traits.PARITY_BOUND:.0e} is allowed."
    )


def _refused(refusal: Refusal) -> Iterator[str]:
    yield f"{refusal.name}, version {refusal.version.version}: REFUSED, {refusal.version.reason}"
    yield f"  {_sentence(refusal.version.description)}"


def _sentence(words: str) -> str:
    first = words.split(maxsplit=1)[0] if words.strip() else ""
    # A key or a file's name is written as it is; a dot at its end only ends a sentence.
    named = any(mark in first.rstrip(".:,") for mark in "._[")
    whole = words if named else words[:1].upper() + words[1:]
    return whole if whole.endswith(".") else f"{whole}."
