"""Occlusion, window 11 and stride 5: what a uniform sample of the grid costs against Captum's windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from voxplain.v1 import method_pb2

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.our_calls import OurServer, our_server
from tests.benchmarks.peer import PeerRun, difference, run_both
from tests.benchmarks.rows import captum_totals, row
from tests.benchmarks.sampled_windows import SCORE_SPACINGS, WHOLE, sample_windows
from tests.benchmarks.subjects import SUBJECTS

BLOCKS, LENGTH = 6, WHOLE
OTHER_BLOCKS, OTHER_LENGTH = 4, 96
"""The sample of other networks than the headline's: some take half an hour for a block."""


def measure(name: str = "vgg-like", edge: int = 128) -> Iterator[Figure]:
    """Parity on windows so large that Captum's whole map is affordable, and on small ones by whole passes; then the rows."""
    blocks, length = (BLOCKS, LENGTH) if name == "vgg-like" else (OTHER_BLOCKS, OTHER_LENGTH)
    captum = run_both("occlusion", edge, name)
    with our_server(SUBJECTS[name], edge) as ours:
        compared, engine = _parity(ours, captum["default"])
        yield compared
    for fill in ("zero", "noise"):
        found = sample_windows(name, edge, fill, blocks=blocks, length=length, engine=engine)
        grid = int(found["grid"])
        seconds = {allocator: run.total(grid) for allocator, run in captum.items()}
        theirs = " and ".join(f"{1000 * run.each:.0f}" for run in captum.values())
        told = f"{1000 * found['each']:.2f} ms against {theirs} ms"
        sample = f"{found['windows']:.0f} of {grid} windows at random, {found['changing']:.0f} of them change voxels; {engine}"
        yield from row(f"occlusion_11_5_{fill}", found["each"] * grid, seconds, f"a window {told}; {sample}")
        if fill == "noise":
            told = "effects of 11^3 windows against whole passes of ONNX Runtime, relative to the largest"
            yield figure("parity/occlusion_windows_vs_whole_passes", found["difference"], "relative", told)
            yield from captum_totals("occlusion", seconds)
    if edge == 128 and name == "vgg-like":
        dense = sample_windows(name, edge, "noise", blocks=2, length=12, engine="onnxruntime-cpu")
        told = f"{1000 * dense['each']:.0f} ms an evaluation, by whole passes of ONNX Runtime"
        yield figure("rate/occlusion_vs_captum", captum["default"].each / dense["each"], "x", told)


def _parity(ours: OurServer, peer: PeerRun) -> tuple[Figure, str]:
    """The figure, and the engine that the server chose for this network and host."""
    column = [ours.edge, ours.edge // 2, ours.edge // 2]
    window = method_pb2.Occlusion(window=column, stride=column)
    window.fill.zero.SetInParent()
    result = ours.explain([method_pb2.Method(occlusion=window)])
    compared = parity("occlusion", ours.maps(result, "occlusion"), peer.maps["occlusion"], result.prediction.score)
    return compared, result.results["occlusion"].engine


def parity(name: str, ours: np.ndarray, theirs: np.ndarray, score: float) -> Figure:
    """A parity figure of a perturbation method: differences below the rounding of the score count as none."""
    floor = SCORE_SPACINGS * float(np.spacing(np.float32(abs(score))))
    detail = f"{difference(ours, theirs):.2g} without the floor of {SCORE_SPACINGS} float32 spacings of the score"
    return figure(f"parity/{name.replace('-', '_')}_vs_captum", difference(ours, theirs, floor), "relative", detail)
