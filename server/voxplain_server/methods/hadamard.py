"""Hadamard matrices: square, of +1 and -1, with rows and with columns orthogonal to each other."""

from __future__ import annotations

from itertools import count

import numpy as np
import numpy.typing as npt

Signs = npt.NDArray[np.int8]


def hadamard(least: int) -> Signs:
    """A Hadamard matrix of the smallest order, from `least` on, that these constructions reach.

    Doubling (Sylvester 1867) of the orders 1, p + 1 for primes p = 3 mod 4 and 2 (p + 1) for primes p = 1 mod 4 (Paley, "On
    orthogonal matrices", 1933). That is every multiple of four up to 48, and most beyond.

    Args:
        least: from 1 on.
    """
    for order in count(max(least, 1)):
        matrix = _of_order(order)
        if matrix is not None:
            return matrix
    raise AssertionError  # pragma: no cover


def _of_order(order: int) -> Signs | None:
    if order == 1:
        return np.ones((1, 1), dtype=np.int8)
    if order == 2:
        return np.array([[1, 1], [1, -1]], dtype=np.int8)
    if order % 4:
        return None
    if _is_prime(order - 1):
        return _paley_one(order - 1)
    if order // 2 % 4 == 2 and _is_prime(order // 2 - 1):
        return _paley_two(order // 2 - 1)
    half = _of_order(order // 2)
    return None if half is None else np.block([[half, half], [half, -half]]).astype(np.int8)


def _paley_one(prime: int) -> Signs:
    matrix = np.ones((prime + 1, prime + 1), dtype=np.int8)
    matrix[1:, 1:] = _characters(prime) + np.eye(prime, dtype=np.int8)
    matrix[1:, 0] = -1
    return matrix


def _paley_two(prime: int) -> Signs:
    conference = np.ones((prime + 1, prime + 1), dtype=np.int8)
    conference[1:, 1:] = _characters(prime)
    conference[0, 0] = 0
    off, on = np.array([[1, 1], [1, -1]], dtype=np.int8), np.array([[1, -1], [-1, -1]], dtype=np.int8)
    return np.asarray(np.kron(conference, off) + np.kron(np.eye(prime + 1, dtype=np.int8), on), dtype=np.int8)


def _characters(prime: int) -> Signs:
    """(prime, prime) 1 where the difference of row and column is a square modulo the prime, 0 on the diagonal, else -1."""
    character = np.full(prime, -1, dtype=np.int8)
    character[np.arange(1, prime, dtype=np.int64) ** 2 % prime] = 1
    character[0] = 0
    characters: Signs = character[(np.arange(prime)[:, None] - np.arange(prime)) % prime]
    return characters


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
