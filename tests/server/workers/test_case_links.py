"""Which evaluations of several plans are one and the same, compared with the bytes of the perturbed cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from google.protobuf.message import Message
from voxplain.v1 import explain_pb2, method_pb2
from voxplain_server.methods import all_methods
from voxplain_server.methods.fingerprint import CaseContent
from voxplain_server.methods.method import PerturbationMethod
from voxplain_server.methods.plan import Plan
from voxplain_server.models.case import Case
from voxplain_server.workers.case_links import CaseLinks, LinkBook

from tests.fakes import fake_case, fake_setting, linear_formula

SHAPES = ((8, 8, 8), (8, 8, 8))
GRID = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4]), shared=False)
SHARED = method_pb2.FeatureGrouping(grid=method_pb2.GridGrouping(edge_voxels=[4]), shared=True)
WHOLE = method_pb2.FeatureGrouping(whole_modality=method_pb2.WholeModalityGrouping())
MEAN = method_pb2.Baseline(modality_mean=method_pb2.ModalityMeanBaseline())
Asked = tuple[str, Message]
MANY: tuple[Asked, ...] = (
    ("feature-ablation", method_pb2.FeatureAblation(grouping=GRID)),
    ("shapley-value-sampling", method_pb2.ShapleyValueSampling(grouping=GRID, permutations=6)),
    ("kernel-shap", method_pb2.KernelShap(grouping=GRID, samples=60)),
    ("kernel-shap", method_pb2.KernelShap(grouping=SHARED, samples=60)),
    ("lime", method_pb2.Lime(grouping=GRID, samples=60)),
    ("leverage-shap", method_pb2.LeverageShap(grouping=GRID, samples=60)),
    ("fold-over-lime", method_pb2.FoldOverLime(grouping=GRID, samples=60)),
    ("antithetic-shapley", method_pb2.AntitheticShapley(grouping=GRID, groups=8)),
    ("modality-shapley", method_pb2.ModalityShapley()),
    ("feature-ablation", method_pb2.FeatureAblation(grouping=WHOLE)),
    ("feature-ablation", method_pb2.FeatureAblation(grouping=GRID, baseline=MEAN)),
    ("feature-permutation", method_pb2.FeaturePermutation(grouping=GRID)),
)


@pytest.fixture(scope="module")
def case() -> Case:
    return fake_case(SHAPES, donors=2)


def plan_all(case: Case, asked: Sequence[Asked]) -> list[Plan]:
    plans = []
    for number, (name, params) in enumerate(asked):
        method = all_methods()[name]
        assert isinstance(method, PerturbationMethod)
        plans.append(method.plan(fake_setting(method, case, linear_formula(SHAPES), params, seed=number, block_size=8)))
    return plans


def link_all(case: Case, plans: Sequence[Plan], budget: explain_pb2.Budget | None = None) -> list[CaseLinks]:
    book = LinkBook(case.volumes, budget or explain_pb2.Budget())
    return [book.link(index, plan, plan.blocks) for index, plan in enumerate(plans)]


def perturbed(case: Case, plan: Plan, number: int) -> bytes:
    volumes = [volume.copy() for volume in case.volumes]
    plan.perturbation(number).write(volumes)
    return b"".join((volume + 0.0).tobytes() for volume in volumes)


def test_links_join_equal_cases_and_no_others(case: Case) -> None:
    plans = plan_all(case, MANY)
    first: dict[bytes, tuple[int, int]] = {}
    for index, (plan, links) in enumerate(zip(plans, link_all(case, plans), strict=True)):
        for number in range(plan.evaluations):
            if plan.unchanged[number]:
                expected = (index, number)
            else:
                expected = first.setdefault(perturbed(case, plan, number), (index, number))
            found = (int(links.method[number]), int(links.evaluation[number]))
            assert found == ((-1, 0) if expected == (index, number) else expected)


def test_the_ablation_of_every_feature_is_inside_the_walks_that_end_with_it(case: Case) -> None:
    ablation, walks = plan_all(case, MANY[:2])
    ends = {int(walks.order(walk)[-1]) for walk in range(6)}  # type: ignore[attr-defined]
    links = link_all(case, [walks, ablation])[1]
    assert int(links.taken.sum()) == len(ends)
    links = link_all(case, [ablation, walks])[1]
    assert int((links.method == 0).sum()) == 6
    assert len(set(links.evaluation[links.method == 0].tolist())) == len(ends)


def test_walks_share_what_they_begin_and_end_with_among_each_other(case: Case) -> None:
    plan = plan_all(case, [("shapley-value-sampling", method_pb2.ShapleyValueSampling(grouping=WHOLE, permutations=5))])[0]
    links = link_all(case, [plan])[0]
    # Two players: nobody, one, the other. The case itself needs nothing.
    needed = ~links.taken & ~plan.unchanged
    assert int(needed.sum()) == 3
    assert (links.evaluation[links.taken] < np.flatnonzero(links.taken)).all()


def test_nothing_is_taken_from_blocks_that_a_budget_may_leave_out(case: Case) -> None:
    plans = plan_all(case, [MANY[0], MANY[0]])
    assert [block.stop for block in plans[0].blocks] == [1, 8, 16]
    assert link_all(case, plans)[1].taken.sum() == plans[0].evaluations - plans[0].unchanged.sum()
    for budget in (explain_pb2.Budget(max_evaluations=8), explain_pb2.Budget(target_standard_error=0.1)):
        links = link_all(case, plans, budget)[1]
        taken = set(links.evaluation[links.taken].tolist())
        assert taken == set(np.flatnonzero(~plans[0].unchanged[:8]).tolist())


def test_what_changes_nothing_has_no_fingerprint_and_zeros_of_both_signs_are_one(case: Case) -> None:
    features = plan_all(case, MANY[:1])[0].grouped  # type: ignore[attr-defined]
    content = CaseContent(case.volumes)
    assert not content.of_features(features, case.volumes).any()
    zeros, negative = (tuple(np.full(shape, value, np.float32) for shape in SHAPES) for value in (0.0, -0.0))
    assert (content.of_features(features, zeros) == content.of_features(features, negative)).all()
    assert content.of_features(features, zeros).any()
