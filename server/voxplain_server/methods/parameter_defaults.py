"""Defaults of the messages that several methods share."""

from __future__ import annotations

from google.protobuf.message import Message
from voxplain.v1 import method_pb2

from voxplain_server.models.model import Model

DEFAULT_BLUR_SIGMA_VOXELS = 4.0
DEFAULT_SLIC_SEGMENTS = 50
DEFAULT_SLIC_COMPACTNESS = 0.1
DEFAULT_SLIC_SIGMA_VOXELS = 2.0
DEFAULT_GRID_EDGE_VOXELS = 16

_DEFAULT_SLIC = method_pb2.SlicGrouping(
    segments=DEFAULT_SLIC_SEGMENTS, compactness=DEFAULT_SLIC_COMPACTNESS, sigma_voxels=DEFAULT_SLIC_SIGMA_VOXELS
)
_BY_TYPE: tuple[Message, ...] = (
    method_pb2.GaussianBlurBaseline(sigma_voxels=DEFAULT_BLUR_SIGMA_VOXELS),
    method_pb2.BackgroundBaseline(case_index=0),
    _DEFAULT_SLIC,
    method_pb2.GridGrouping(edge_voxels=[DEFAULT_GRID_EDGE_VOXELS]),
)


def defaults_of(message: Message) -> Message:
    """The defaults of a message's type that hold whichever method it stands in; an empty message where it has none."""
    for default in _BY_TYPE:
        if default.DESCRIPTOR is message.DESCRIPTOR:
            return default
    return type(message)()


def zero_baseline() -> method_pb2.Baseline:
    """Zero everywhere."""
    return method_pb2.Baseline(zero=method_pb2.ZeroBaseline())


def slic_grouping(model: Model | None, *, shared: bool) -> method_pb2.FeatureGrouping:
    """SLIC supervoxels with every parameter filled in.

    Args:
        model: the model, or None for what is documented of all models.
        shared: what the method prefers. A late-fusion model gets a grouping for each modality all the same, because its
            modalities need not lie on one grid.
    """
    grouping = method_pb2.FeatureGrouping(shared=shared and not (model is not None and model.late_fusion))
    grouping.slic.MergeFrom(_DEFAULT_SLIC)
    if grouping.shared and model is not None:
        grouping.grouping_modality = default_grouping_modality(model)
    return grouping


def default_grouping_modality(model: Model) -> str:
    """Whose volume a shared SLIC is computed on: the bundle's choice, else the second modality, else the only one."""
    if model.grouping_modality is not None:
        return model.grouping_modality
    return model.modality_names[min(1, len(model.modalities) - 1)]
