"""The incremental engine against whole passes in float64, on every architecture."""

from __future__ import annotations

import numpy as np
import pytest
from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.models.model import InputSpec

from tests.server.engines.incremental_cases import Setting, many, setting
from tests.server.graph.comparing import read
from tests.server.graph.conftest import Exported
from tests.server.graph.conftest import exported as exported
from tests.server.graph.conftest import one_thread as one_thread
from tests.server.graph.networks import NETWORKS

BOUND = 1e-10


def networked(name: str, exported: Exported, *, dynamo: bool, max_share: float = np.inf) -> Setting:
    graph = read_graph(read(exported(name, dynamo=dynamo)))
    network = NETWORKS[name]
    output_shape = tuple(network.build()(*network.inputs()).shape)
    specs, shapes = [], []
    for number, shape in enumerate(network.input_shapes):
        if name == "mrnet":
            specs.append(InputSpec(f"input_{number}", (f"view {number}",), slice_axis=number, repeat=3))
            planes = [shape[3], shape[4]]
            planes.insert(number, shape[1])
            shapes.append(tuple(planes))
        else:
            specs.append(InputSpec(f"input_{number}", tuple(f"modality {channel}" for channel in range(shape[1]))))
            shapes.append(shape[2:])
    return setting(graph, specs, shapes, output_shape=output_shape, batched=network.dynamic_batch, max_share=max_share)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_answers_as_in_whole_passes(name: str, dynamo: bool, exported: Exported) -> None:
    found = networked(name, exported, dynamo=dynamo)
    assert found.distance(many(found.case)) <= BOUND


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_answers_alike_where_some_perturbations_go_through_the_dense_engine(
    name: str, exported: Exported
) -> None:
    found = networked(name, exported, dynamo=False, max_share=0.3)
    assert found.distance(many(found.case)) <= BOUND
