"""How a ReLU passes gradients back."""

from __future__ import annotations

from enum import Enum


class ReluRule(Enum):
    """What a ReLU does to the gradient g that comes back to it."""

    PLAIN = "plain"
    """Its derivative: g where its input was positive."""
    GUIDED = "guided"
    """max(g, 0) where its input was positive (Springenberg et al. 2015)."""
    DECONVOLUTION = "deconvolution"
    """max(g, 0), whatever its input was (Zeiler and Fergus 2014)."""
