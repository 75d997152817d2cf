"""What EstimateExplanation says before a byte is sent, beside what each method then takes: VGG-like net, small and 4 x 128^3.

Run by itself with `python -m tests.benchmarks estimates`. The rates are measured when the server starts, so a busy machine
moves these figures in both directions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from voxplain.v1 import explain_pb2, method_pb2
from voxplain_client import Client

from tests.benchmarks import vgg_like
from tests.benchmarks.bounds import figure
from tests.benchmarks.figure import Figure
from tests.benchmarks.subject import CLASS_INDEX
from tests.serving import RunningServer

EDGES = (48, 128)
WINDOWS = 2048
"""Of the default occlusion, coarse to fine: an even sample of its windows."""
_GRADIENTS = ("gradient", "guided-backprop", "deconvolution", "grad-cam", "guided-grad-cam", "deep-lift", "gradient-shap")


def _methods() -> dict[str, method_pb2.Method]:
    """Every kind of work, with few samples: the prediction is of so many, and no easier."""
    shared = {name: method_pb2.Method(key=name) for name in _GRADIENTS}
    for name, method in shared.items():
        getattr(method, name.replace("-", "_")).SetInParent()
    return shared | {
        "smooth-grad": method_pb2.Method(smooth_grad=method_pb2.SmoothGrad(samples=4)),
        "integrated-gradients": method_pb2.Method(integrated_gradients=method_pb2.IntegratedGradients(steps=6)),
        "occlusion": method_pb2.Method(occlusion=method_pb2.Occlusion()),
        "feature-ablation": method_pb2.Method(feature_ablation=method_pb2.FeatureAblation()),
        "shapley-value-sampling": method_pb2.Method(shapley_value_sampling=method_pb2.ShapleyValueSampling(permutations=2)),
        "kernel-shap": method_pb2.Method(kernel_shap=method_pb2.KernelShap(samples=24)),
        "lime": method_pb2.Method(lime=method_pb2.Lime(samples=24)),
    }


def measure() -> Iterator[Figure]:
    """Each method in a call of its own, and the worst of them."""
    for edge in EDGES:
        with tempfile.TemporaryDirectory() as scratch:
            vgg_like.write_bundle(Path(scratch), edge)
            with RunningServer(Path(scratch)) as server, Client(server.address) as client:
                yield from _of_one_size(client, edge)


def _of_one_size(client: Client, edge: int) -> Iterator[Figure]:
    case, ratios = vgg_like.case(edge), []
    for name, method in {"": _methods()["gradient"], **_methods()}.items():
        budget = explain_pb2.Budget(max_evaluations=WINDOWS) if name == "occlusion" else explain_pb2.Budget()
        told = client.estimate(model="vgg-like", volumes=case, methods=[method], target=CLASS_INDEX, budget=budget)
        began_at = time.monotonic()
        with client.explain(model="vgg-like", volumes=case, methods=[method], target=CLASS_INDEX, budget=budget) as running:
            result = running.result()
        took = time.monotonic() - began_at
        if not name:
            # The first call imports torch and loads the model.
            continue
        ended = result.results[method.key or name]
        share = ended.evaluations_done / max(told.plans[0].evaluations, 1)
        parts = [
            _seconds(told.preparing_duration),
            _seconds(told.transfer_duration),
            _seconds(told.plans[0].estimated_duration),
        ]
        predicted = parts[0] + parts[1] + share * parts[2]
        ratios.append(predicted / took)
        said = f"predicted {predicted:.2f} s (preparing {parts[0]:.2f}, transfer {parts[1]:.2f})"
        detail = f"{said}, took {took:.2f} s, of it compute {_seconds(ended.compute_duration):.2f}; engine {ended.engine}"
        yield figure(f"estimate/{edge}/{name.replace('-', '_')}", predicted / took, "predicted / actual", detail)
    off = sum(not 0.7 <= ratio <= 1.3 for ratio in ratios)
    yield figure(f"estimate/{edge}/off_by_more_than_30_percent", off, "methods", f"of {len(ratios)}")


def _seconds(duration: object) -> float:
    return duration.ToNanoseconds() / 1e9  # type: ignore[attr-defined, no-any-return]
