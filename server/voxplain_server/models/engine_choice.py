"""Which engine evaluates the perturbed cases of a model on this host, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EnginePreference = Literal["auto", "onnxruntime", "incremental"]
"""What an operator asks for: the faster one, whole passes, or only what a perturbation changes."""


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
