"""Memory that was freed and that the allocator still holds."""

from __future__ import annotations

import ctypes

_LONG = 4
"""Evaluations from which the faults of a fresh start cost nothing beside them."""


class FreedMemory:
    """Gives freed memory back to the system: with our allocator settings glibc keeps all of it.

    What one method has freed lies in pieces of other sizes, and in the heaps of other threads, than the next one asks for. At
    4 x 128^3 sixteen methods grew one on top of the other to 5.4 GB, of which none needs more than 3.2.
    """

    def __init__(self) -> None:
        self._method = -1
        self._long = False

    def begin(self) -> None:
        """A new call."""
        self._method, self._long = -1, False

    def turn_to(self, method: int, *, evaluations: int) -> None:
        """The work that follows belongs to this method. Memory goes back where it is another one than before and either of the
        two is long: short methods share a pass and what it holds. Not before the first: what the call has prepared so far is
        little, and what it freed is used again (a call of three seconds took a tenth longer).

        Args:
            method: its index in the call.
            evaluations: that it takes.
        """
        if method == self._method:
            return
        first, before = self._method < 0, self._long
        self._method, self._long = method, evaluations > _LONG
        if not first and (before or self._long):
            self.give_back()

    def give_back(self) -> None:
        """Give all back, in every thread's heap."""
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:
            # Another C library than glibc has no such call, and no such settings.
            return
