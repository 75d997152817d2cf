"""One row of the overview: a method, its maps, and what is said about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from voxplain_client.pictures.map_sketch import MapSketch


@dataclass(frozen=True, slots=True, eq=False)
class OverviewMap:
    """One attribution map, read only when it is drawn.

    Attributes:
        sketch: its grid, modalities and scale.
        load: gives its voxels.
    """

    sketch: MapSketch
    load: Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class OverviewRow:
    """A method in the overview.

    Attributes:
        key: the method's key.
        notes: short lines under the key: the method's name where it differs, evaluations, gap, time.
        warning: short and red under the key, and in every panel of the row: "PARTIAL". Empty for a complete result.
        is_signed: whether the sign of values has a meaning.
        maps: one for each modality, or shared ones; empty where there are none.
        captions: a line under each panel, by modality.
        numbers: one number for each modality, where the method gives numbers and no maps.
        absence: why there is neither map nor number, in words.
    """

    key: str
    is_signed: bool
    notes: tuple[str, ...] = ()
    warning: str = ""
    maps: tuple[OverviewMap, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    absence: str = ""

    @property
    def scale(self) -> float:
        """The value of the strongest colour: one for all modalities of the method; 0 where all maps are zero."""
        return max((one.sketch.scale for one in self.maps), default=0.0)

    @property
    def largest(self) -> float:
        """The largest absolute value of all its maps."""
        return max((one.sketch.largest for one in self.maps), default=0.0)

    @property
    def unreached(self) -> bool:
        """Whether a map of it has voxels that no evaluation has reached."""
        return any(one.sketch.unreached for one in self.maps)

    def map_of(self, modality: str) -> OverviewMap | None:
        """The map that serves a modality."""
        return next((one for one in self.maps if modality in one.sketch.modalities), None)
