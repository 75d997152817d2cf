"""How far a coalition's volumes are from the case's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from voxplain_server.methods.game import Game
from voxplain_server.models.case import Volumes

SMALLEST_NORM = 1e-8
"""Below this a volume has no direction and its cosine counts as zero; torch's CosineSimilarity has the same bound."""


def cosine_distances(game: Game, volumes: Volumes, coalitions: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """1 - cos(case, case with the absent players at their baseline), all modalities as one long vector.

    Scalar products are sums over features, so each is summed over voxels once, not once for each coalition.

    Args:
        game: the players.
        volumes: the case.
        coalitions: (samples, players) True: present.

    Returns:
        (samples,) from 0 to 2.
    """
    count = game.features.count
    own, mixed, other = np.zeros(count), np.zeros(count), np.zeros(count)
    for labels, volume, source in zip(game.features.labels, volumes, game.source, strict=True):
        places, x, b = labels.ravel(), volume.ravel().astype(np.float64), source.ravel().astype(np.float64)
        own += np.bincount(places, weights=x * x, minlength=count)
        mixed += np.bincount(places, weights=x * b, minlength=count)
        other += np.bincount(places, weights=b * b, minlength=count)
    absent = (~coalitions).astype(np.float64)
    square = own.sum()
    product = square + absent @ (mixed - own)[game.players]
    perturbed_square = np.maximum(square + absent @ (other - own)[game.players], 0.0)
    norms = np.maximum(np.sqrt(square), SMALLEST_NORM) * np.maximum(np.sqrt(perturbed_square), SMALLEST_NORM)
    distances: npt.NDArray[np.float64] = 1.0 - product / norms
    return distances
