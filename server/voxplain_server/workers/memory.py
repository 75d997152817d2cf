"""Memory files: arrays that two processes see, without a name and without a copy.

A memfd has no path, so nothing is left behind by a killed process; it is not bound by the size of /dev/shm; and it is gone
with its last holder.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt


def create_memory(size: int, name: str = "voxplain") -> int:
    """Make a memory file of `size` bytes, all zero, and return its descriptor (close-on-exec).

    Its name is only for whoever looks into /proc.

    Raises:
        OSError: the system gives no more.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_memory(descriptor: int, size: int, *, writable: bool) -> npt.NDArray[np.uint8]:
    """The first `size` bytes of a memory file as an array. It stays mapped as long as an array refers to it.

    Raises:
        ValueError: the file is shorter than `size`.
    """
    if size == 0:
        return np.zeros(0, dtype=np.uint8)
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    return np.frombuffer(mmap.mmap(descriptor, size, access=access), dtype=np.uint8)


def memory_of(array: npt.NDArray[np.generic]) -> int:
    """Put the bytes of an array, in C order, into a new memory file and return its descriptor."""
    contiguous = np.ascontiguousarray(array)
    descriptor = create_memory(contiguous.nbytes)
    try:
        map_memory(descriptor, contiguous.nbytes, writable=True)[:] = contiguous.reshape(-1).view(np.uint8)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def close_all(descriptors: tuple[int, ...] | list[int]) -> None:
    """Close descriptors that came with a frame."""
    for descriptor in descriptors:
        os.close(descriptor)
