"""The models of the rows: tiny, because what is tried is the server around them."""

from __future__ import annotations

from pathlib import Path

from tests.bundles import TinyBundle, early_fusion_classes, late_fusion

SHAPE = (20, 22, 18)
WHOLE_CASE = (240, 240, 155)


def tiny_bundle(models: Path) -> TinyBundle:
    """Four modalities, seven thousand voxels each; written anew, byte by byte the same."""
    return early_fusion_classes(models, name="tiny-glioma", shape=SHAPE)


def other_bundle(models: Path) -> TinyBundle:
    """Late fusion, with shapes of its own."""
    return late_fusion(models)


def wide_bundle(models: Path) -> TinyBundle:
    """Four modalities of any size, so that a whole case can be sent."""
    return early_fusion_classes(models, name="tiny-wide", dynamic_shape=True)
