"""Random graphs and random boxes: incremental and whole passes agree in float64."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.models.model import InputSpec

from tests.server.engines.incremental_cases import many, noise, scattered, setting, window
from tests.server.engines.incremental_graphs import RandomGraph, random_graphs

BOUND = 1e-10


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=random_graphs(), data=st.data())
def test_random_graphs_answer_as_in_whole_passes(random: RandomGraph, data: st.DataObject) -> None:
    graph = read_graph(random.proto)
    specs = [
        InputSpec(f"input{number}", tuple(f"modality {number}.{channel}" for channel in range(shape[0])))
        for number, shape in enumerate(random.inputs)
    ]
    found = setting(graph, specs, [shape[1:] for shape in random.inputs], output_shape=(1, 2), zeros=0.3)
    case, source = found.case, noise(found.case)
    perturbations = []
    for _ in range(6):
        modality = data.draw(st.integers(0, len(case.volumes) - 1))
        shape = case.volumes[modality].shape
        start = [data.draw(st.integers(0, size - 1)) for size in shape]
        regions = [window(case, modality, start, [data.draw(st.integers(1, 5)) for _ in shape])]
        if data.draw(st.booleans()):
            regions.append(scattered(case, data.draw(st.integers(0, len(case.volumes) - 1)), 6, seed=start[0]))
        zero = tuple(np.zeros_like(volume) for volume in case.volumes)
        perturbations.append(Perturbation(regions=tuple(regions), source=data.draw(st.sampled_from((source, zero)))))
    for modality, volume in enumerate(case.volumes):
        # The first and the last corner, where a box is cut and the border's padding is in reach.
        corners = ([0] * volume.ndim, [size - 2 for size in volume.shape])
        perturbations += [Perturbation((window(case, modality, corner, [3] * volume.ndim),), source) for corner in corners]
    exact = found.exact(perturbations)
    base = found.exact([many(case)[-1]])[0]
    effect = np.abs(exact - base).max()
    # Where nothing reaches the output there is no effect to be relative to.
    assert np.abs(found.found(perturbations) - exact).max() <= BOUND * max(effect, 1e-3)
