"""Random draws that are the same on every worker."""

from __future__ import annotations

import hashlib

import numpy as np


def philox(seed: int, *stream: int | str) -> np.random.Generator:
    """Open the random stream of a name.

    Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) is counter-based: its key alone fixes the
    stream. The key is the SHA-256 of seed and names, so streams of different names never overlap, need no order of drawing,
    and are equal in every process.

    Args:
        seed: the call's seed.
        stream: names of the draw, for example the method's key, "walk" and the walk's number. 1 and "1" are different names.

    Returns:
        A generator at the start of the stream.
    """
    digest = hashlib.sha256(f"voxplain {seed}".encode())
    for part in stream:
        name = f"{type(part).__name__} {part}".encode()
        digest.update(f"|{len(name)}|".encode() + name)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest()[:16], "little")))
