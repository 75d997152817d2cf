"""Which engine evaluates the perturbed cases of a model on this host, and why."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Literal

EnginePreference = Literal["auto", "onnxruntime", "torch", "incremental"]
"""What an operator asks for: the fastest, whole passes by one of two engines, or only what a perturbation changes."""


MAX_SHARE = 0.5
"""A perturbation that takes a larger share of a whole pass goes through the engine of whole passes."""


@dataclass(frozen=True, slots=True)
class BoxCost:
    """What changing a cube of voxels takes, on average over its places.

    Attributes:
        edge: voxels along its axes, or the whole axis where that is shorter.
        share: operations, counted, over those of a whole pass.
        seconds: measured time of one such evaluation among many; None: not measured.
    """

    edge: int
    share: float
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The outcome of one measurement.

    Attributes:
        engine: name of the engine that is used where a call pins none.
        available: names of all that can evaluate the model; a call may pin any of them.
        reason: why, in plain words.
        dense_seconds: measured time of one window by a whole pass.
        incremental_seconds: measured time of one window by recomputing what it changes; None: not measured.
        share: operations of such a window, counted, over those of a whole pass; None: not counted.
        boxes: what changing cubes takes, the smallest first; empty: not counted.
        difference: largest difference between the two engines' effects over the largest effect, rounding of the score left
            out; None: not measured.
    """

    engine: str
    available: tuple[str, ...]
    reason: str
    dense_seconds: float
    incremental_seconds: float | None = None
    share: float | None = None
    difference: float | None = None
    boxes: tuple[BoxCost, ...] = ()

    def share_of(self, edge: float, *, growth: float = 1.0) -> float:
        """Operations for a changed cube over those of a whole pass, read between the cubes that were counted.

        Args:
            edge: of the cube, in voxels.
            growth: voxels of the case over those of the case that was counted on.
        """
        if not self.boxes or edge <= 0:
            return 1.0
        edges, shares = ([math.log(max(getattr(box, name), 1e-9)) for box in self.boxes] for name in ("edge", "share"))
        place = min(max(bisect.bisect_left(edges, math.log(edge)), 1), len(edges) - 1)
        if len(edges) == 1:
            return min(self.boxes[0].share / growth, 1.0)
        slope = (shares[place] - shares[place - 1]) / (edges[place] - edges[place - 1])
        return min(math.exp(shares[place - 1] + slope * (math.log(edge) - edges[place - 1])) / growth, 1.0)

    def seconds_of(self, share: float, *, whole: float) -> float:
        """Estimated time of an evaluation that takes a share of the operations of a whole pass: small boxes take longer for
        an operation than a whole pass does.

        Args:
            share: 0 to 1; beyond MAX_SHARE it is a whole pass.
            whole: seconds of a whole pass.
        """
        if share > MAX_SHARE:
            return whole
        known = [(box.share, box.seconds) for box in self.boxes if box.seconds and box.share]
        if not known and self.incremental_seconds and self.share:
            known = [(self.share, self.incremental_seconds)]
        if not known or not self.dense_seconds:
            return whole * share
        slower = [seconds / (own * self.dense_seconds) for own, seconds in known]
        places = [math.log(own) for own, _ in known]
        at = min(max(math.log(max(share, 1e-9)), places[0]), places[-1])
        right = min(max(bisect.bisect_left(places, at), 1), len(places) - 1)
        factor = slower[0]
        if len(places) > 1:
            weight = (at - places[right - 1]) / (places[right] - places[right - 1])
            factor = slower[right - 1] + weight * (slower[right] - slower[right - 1])
        return whole * min(share * factor, 1.0)
