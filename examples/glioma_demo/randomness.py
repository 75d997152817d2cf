"""Independent random streams out of one seed."""

from typing import Literal, TypeAlias

import numpy as np

# Each thing that varies draws from a stream of its own, so that replacing one tumour leaves every other draw as it was.
Stream: TypeAlias = Literal["shapes", "anatomy", "place", "outline", "contrast", "bias", "noise"]
_NUMBER: dict[Stream, int] = {
    "shapes": 0,
    "anatomy": 1,
    "place": 2,
    "outline": 3,
    "contrast": 4,
    "bias": 5,
    "noise": 6,
}


def open_stream(seed: int, stream: Stream, part: int = 0) -> np.random.Generator:
    """A generator that depends on (seed, stream, part) alone; `part` tells modalities apart."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, _NUMBER[stream], part])))
