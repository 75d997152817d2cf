"""What EstimateExplanation says before a byte is sent, beside what each method then takes: the VGG-like net, small.

At 4 x 128^3 the same is measured along with each method's memory (each_method). The rates are measured when the server starts,
so a busy machine moves these figures in both directions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client.method_names import METHOD_NAMES, make_method

from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.our_calls import OurServer, our_server
from tests.benchmarks.subject import CLASS_INDEX
from tests.benchmarks.subjects import SUBJECTS

EDGE = 48
SIXTEEN = METHOD_NAMES[:16]
"""The methods of the published study, which the contract has first."""
FEW: dict[str, dict[str, int]] = {
    "smooth-grad": {"samples": 4},
    "integrated-gradients": {"steps": 6},
    "shapley-value-sampling": {"permutations": 2},
    "kernel-shap": {"samples": 24},
    "lime": {"samples": 24},
}
"""The prediction is of so many, and no easier."""
WINDOWS = 2048
"""Of the default occlusion, coarse to fine: an even sample of its windows."""


def measure() -> Iterator[Figure]:
    """Each method in a call of its own, and how many were predicted badly."""
    with our_server(SUBJECTS["vgg-like"], EDGE) as ours:
        ours.explain(["gradient"])
        found = []
        for name in SIXTEEN:
            found.append(predicted_over_actual(ours, name))
            yield found[-1]
        yield badly_predicted(EDGE, found)


def predicted_over_actual(ours: OurServer, name: str) -> Figure:
    """One call; its seconds are those of its client, from the first byte to the last."""
    method = few_of(name, FEW)
    volumes = ours.subject.volumes(ours.edge)
    asked: dict[str, Any] = {
        "background": donors(ours, name),
        "budget": explain_pb2.Budget(max_evaluations=WINDOWS) if name == "occlusion" else explain_pb2.Budget(),
    }
    told = ours.client.estimate(model=ours.subject.name, volumes=volumes, methods=[method], target=CLASS_INDEX, **asked)
    began_at = time.monotonic()
    result = ours.explain([method], volumes=volumes, **asked)
    took = time.monotonic() - began_at
    ended = result.results[name]
    share = ended.evaluations_done / max(told.plans[0].evaluations, 1)
    preparing, transfer = _seconds(told.preparing_duration), _seconds(told.transfer_duration)
    predicted = preparing + transfer + share * _seconds(told.plans[0].estimated_duration)
    said = f"predicted {predicted:.2f} s (preparing {preparing:.2f}, transfer {transfer:.2f})"
    detail = f"{said}, took {took:.2f} s, of it compute {_seconds(ended.compute_duration):.2f}; engine {ended.engine}"
    return figure(f"estimate/{ours.edge}/{name.replace('-', '_')}", predicted / took, "predicted / actual", detail)


def badly_predicted(edge: int, found: Sequence[Figure]) -> Figure:
    """How many of them are off by more than 30 %."""
    off = sum(not 0.7 <= each.value <= 1.3 for each in found)
    return figure(f"estimate/{edge}/off_by_more_than_30_percent", off, "methods", f"of {len(found)}")


def few_of(name: str, fewer: dict[str, dict[str, int]]) -> method_pb2.Method:
    """A method with so few samples as its name has in `fewer`, else with its defaults."""
    method: method_pb2.Method = make_method(name)
    for field, value in fewer.get(name, {}).items():
        setattr(getattr(method, name.replace("-", "_")), field, value)
    return method


def donors(ours: OurServer, name: str) -> list[dict[str, Any]]:
    """The background case of feature-permutation, none for the others."""
    volumes = ours.subject.volumes(ours.edge)
    return [{modality: volume[::-1].copy() for modality, volume in volumes.items()}] if name == "feature-permutation" else []


def _seconds(duration: Any) -> float:
    return float(duration.ToNanoseconds()) / 1e9
