"""Which perturbations are evaluated from their neighbour in the call, and not from the unperturbed case.

The steps of a Shapley walk differ by one feature each. Counted in operations, the last coalition of a walk is near the case,
and each one before it is near the one behind it: so walks are mostly gone backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Work = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Walk:
    """Perturbations in the order in which they are evaluated: the first from the case, each other from the one before.

    Attributes:
        order: numbers of the perturbations, each one more than the last, or each one less.
        work: operations for each of them.
    """

    order: tuple[int, ...]
    work: tuple[float, ...]

    def halves(self, from_case: Work) -> tuple[Walk, Walk]:
        """Two walks of about equal work; the second one starts from the case."""
        reached = np.cumsum(self.work)
        middle = int(np.clip(np.searchsorted(reached, reached[-1] / 2), 1, len(self.order) - 1))
        later = (float(from_case[self.order[middle]]), *self.work[middle + 1 :])
        return Walk(self.order[:middle], self.work[:middle]), Walk(self.order[middle:], later)


def plan_walks(from_case: Work, from_neighbour: Work, *, most: float) -> list[Walk]:
    """Find the cheapest way to evaluate a row of perturbations.

    Args:
        from_case: (perturbations,) operations for evaluating each from the unperturbed case.
        from_neighbour: (perturbations,) operations for evaluating each from the one before it, or that one from it; infinite
            where they are no neighbours. The first has none before it.
        most: what a perturbation takes at most if it is evaluated by itself.

    Returns:
        Walks of at least two perturbations. The others are to be evaluated by themselves.
    """
    count = from_case.size
    best, chosen = 0.0, [""] * count
    forward, backward = np.inf, np.inf
    goes_on = np.zeros((2, count), np.bool_)
    for number in range(count):
        step = float(from_neighbour[number]) if number else np.inf
        goes_on[0, number] = forward + step < best + from_case[number]
        goes_on[1, number] = backward + step < best
        forward = min(forward + step, best + float(from_case[number]))
        backward = min(backward + step, best)
        ends = {
            "alone": best + min(float(from_case[number]), most),
            "forward": forward,
            "backward": backward + from_case[number],
        }
        chosen[number] = min(ends, key=lambda way: ends[way])
        best = float(ends[chosen[number]])
    return _trace(chosen, goes_on, from_case, from_neighbour)


def _trace(chosen: Sequence[str], goes_on: npt.NDArray[np.bool_], from_case: Work, from_neighbour: Work) -> list[Walk]:
    walks = []
    last = len(chosen) - 1
    while last >= 0:
        first = last
        if chosen[last] != "alone":
            way = 0 if chosen[last] == "forward" else 1
            while goes_on[way, first]:
                first -= 1
            steps = [float(each) for each in from_neighbour[first + 1 : last + 1]]
            if first < last and way == 0:
                walks.append(Walk(tuple(range(first, last + 1)), (float(from_case[first]), *steps)))
            elif first < last:
                walks.append(Walk(tuple(range(last, first - 1, -1)), (float(from_case[last]), *reversed(steps))))
        last = first - 1
    return walks[::-1]


def share_out(walks: Sequence[Walk], from_case: Work, *, streams: int, full: float) -> list[Walk]:
    """Halve the longest walks until every stream has one, as long as that costs little."""
    shared = list(walks)
    while shared and len(shared) < streams:
        longest = max(shared, key=lambda walk: sum(walk.work))
        if len(longest.order) < 4 or sum(longest.work) < 3 * full:
            break
        shared.remove(longest)
        shared.extend(longest.halves(from_case))
    return shared
