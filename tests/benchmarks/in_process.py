"""Methods on the demo case in one process, without server, stream or worker.

    python -m tests.benchmarks.in_process METHOD ...

Does what an explanation needs and nothing else: fit and normalise, base answer, plan, evaluate, estimate, maps on the client's
grid. Prints the seconds of each method's second run (the first warms up) as one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2
from voxplain.volume import Volume
from voxplain_client.imaging.nifti import read_nifti
from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.methods import all_methods
from voxplain_server.methods.method import GradientMethod, PerturbationMethod, Setting
from voxplain_server.methods.resolve import resolve_method
from voxplain_server.models.bundle import find_bundles
from voxplain_server.models.case_building import ClientTensor, FittedCase, build_case
from voxplain_server.models.loading import load_model
from voxplain_server.models.targeting import resolve_target
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.execution import resolve_execution
from voxplain_server.workers.held_model import HeldModel
from voxplain_server.workers.map_making import MapMaker

DEMO = Path(__file__).resolve().parents[2] / "examples" / "glioma_demo"
MODELS = DEMO / "models"
CASE = DEMO / "cases" / "case-1"
MODALITIES = ("t1", "t1c", "t2", "flair")
THREADS = 2


def read_case(folder: Path) -> dict[str, Volume]:
    """The volumes of a demo case by modality."""
    return {name: read_nifti(folder / f"{name}.nii.gz", field=name).volume for name in MODALITIES}


def explain(held: HeldModel, volumes: dict[str, Volume], name: str) -> float:
    """Seconds of one explanation."""
    start = time.perf_counter()
    tensors = [_tensor(modality, volume) for modality, volume in volumes.items()]
    fitted: FittedCase = build_case(held.model, tensors, donors=False)
    target = resolve_target(held.model, explain_pb2.Target(), held.evaluator.answer(fitted.case), None)
    method = all_methods()[name]
    asked = method_pb2.Method()
    getattr(asked, name.replace("-", "_")).SetInParent()
    resolved, _ = resolve_method(asked, held.model)
    spec = explain_pb2.ExplainSpec(tensors=[tensor.header for tensor in tensors])
    execution = resolve_execution(held.model, spec, engine=held.evaluator.name, threads=THREADS)
    setting = Setting(
        case=fitted.case,
        score=target.score,
        base_score=target.value,
        params=getattr(resolved, name.replace("-", "_")),
        seed=0,
        key=name,
        traits=ModelTraits(has_relu=True, twin_parity=0.0),
        block_size=execution.block_size,
        features=FeatureCache(threads=THREADS),
    )
    if isinstance(method, GradientMethod):
        estimate = method.attribute(setting, held.twin, advanced=lambda _: None, cancelled=lambda: False)
    elif isinstance(method, PerturbationMethod):
        plan = method.plan(setting)
        scores = np.full(plan.evaluations, target.value)
        for block in plan.blocks:
            changed = [index for index in range(block.start, block.stop) if not plan.unchanged[index]]
            if changed:
                scores[changed] = held.evaluator.scores(
                    fitted.case,
                    target.score,
                    [plan.perturbation(index) for index in changed],
                    batch_size=execution.batch_size,
                    cancelled=lambda: False,
                )
        estimate = method.estimate(plan, scores, np.ones(plan.evaluations, dtype=bool))
    maker = MapMaker(fitted, explain_pb2.GRID_INPUT)
    list(maker.final(estimate))
    return time.perf_counter() - start


def _tensor(modality: str, volume: Volume) -> ClientTensor:
    affine = [] if volume.geometry.affine is None else volume.geometry.affine.reshape(-1).tolist()
    header = tensor_pb2.Tensor(
        id=modality,
        role=tensor_pb2.TENSOR_ROLE_VOLUME,
        modality=modality,
        data_type=tensor_pb2.DATA_TYPE_FLOAT32,
        shape=volume.geometry.shape,
        affine=affine,
    )
    return ClientTensor(header, np.ascontiguousarray(volume.voxels, dtype=np.float32))


def main() -> None:
    """Run each twice, tell the second time."""
    (place,) = find_bundles(MODELS)
    held = HeldModel(load_model(place), threads=THREADS)
    volumes = read_case(CASE)
    found = {name: [explain(held, volumes, name) for _ in range(2)][-1] for name in sys.argv[1:]}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
