"""Random streams by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from voxplain_server.methods.draws import philox


def test_a_name_opens_the_same_stream_every_time() -> None:
    np.testing.assert_array_equal(philox(7, "lime", "walk", 3).random(5), philox(7, "lime", "walk", 3).random(5))


def test_names_and_seeds_open_different_streams() -> None:
    names: list[tuple[int | str, ...]] = [(), ("a",), ("a", "b"), ("ab",), ("a", 1), ("a", "1"), ("a", 11), ("a|1|b",)]
    firsts = {philox(seed, *name).random() for seed in (0, 1, 2**64 - 1) for name in names}
    assert len(firsts) == 3 * len(names)


def test_another_process_draws_the_same() -> None:
    code = "from voxplain_server.methods.draws import philox; print(philox(42, 'key', 'walk', 9).random().hex())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float.fromhex(result.stdout.strip()) == philox(42, "key", "walk", 9).random()


def test_the_first_draw_never_changes_between_versions() -> None:
    # Maps of old records can be made again only while this holds.
    assert philox(0, "occlusion", "x").random() == 0.9603919295185637
