"""Everything that a spec shows is checked here, before a byte is reserved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message
from voxplain.errors import InvalidSpec, UnsupportedByModel
from voxplain.v1 import explain_pb2, method_pb2
from voxplain.volume import Geometry

from voxplain_server.methods import all_methods
from voxplain_server.methods.feature_grouping import count_features
from voxplain_server.methods.method import DonorMethod, Method
from voxplain_server.methods.resolve import resolve_method
from voxplain_server.models.case_plan import plan_case
from voxplain_server.models.cautions import describe_cautions
from voxplain_server.models.model import Model, OutputKind
from voxplain_server.models.target_check import check_target, supported_scales
from voxplain_server.models.traits import ModelTraits
from voxplain_server.service.reservation import reserved_bytes
from voxplain_server.service.spec_fields import check_declared_bytes, check_fields
from voxplain_server.service.spec_references import check_references, describe_unused
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog, CatalogEntry
from voxplain_server.workers.execution import differences, resolve_execution
from voxplain_server.workers.expected_time import ExpectedTime, expect_time


@dataclass(frozen=True, slots=True, eq=False)
class CheckedSpec:
    """A spec that will be served.

    Attributes:
        entry: the model.
        spec: the request with version, target, methods, seed and grid filled in.
        cautions: what the caller should know.
        evaluations: by method key, as planned on the declared shapes.
        features: by method key, for methods that have features and a grouping that tells about how many before it is made.
        expected: what it will take, from counted work and measured rates.
        reserved_bytes: what the call holds of the ledger.
    """

    entry: CatalogEntry
    spec: explain_pb2.ExplainSpec
    cautions: tuple[explain_pb2.Caution, ...]
    evaluations: dict[str, int]
    features: dict[str, int]
    expected: ExpectedTime
    reserved_bytes: int


def check_spec(spec: explain_pb2.ExplainSpec, catalog: Catalog, limits: Limits) -> CheckedSpec:
    """Check a spec and fill in what it leaves open.

    Raises:
        InvalidSpec: a field cannot be; `field` names it.
        ModelNotFound: no such model or version.
        UnsupportedByModel: a method does not work on the model; `reason` as in GetModel, `field` names the method.
        LimitExceeded: it asks for more than this server allows.
    """
    check_fields(spec, limits)
    entry = catalog.find(spec.model, spec.version)
    model = entry.model
    resolved = explain_pb2.ExplainSpec()
    resolved.CopyFrom(spec)
    resolved.model, resolved.version, resolved.seed = model.name, model.version, spec.seed
    resolved.grid = spec.grid or explain_pb2.GRID_INPUT
    case = plan_case(model, resolved.tensors)
    check_declared_bytes(resolved.tensors, limits)
    check_target(model, resolved.target, tensors=resolved.tensors)
    _fill_target(resolved.target, model)
    traits = replace(entry.traits, background_cases=len(case.background) or entry.traits.background_cases)
    grids = [plan.target for plan in case.plans]
    resolver = _Resolver(model, traits, grids, one_grid=case.one_grid)
    del resolved.methods[:]
    resolved.methods.extend(resolver.resolve(method, f"methods[{index}]") for index, method in enumerate(spec.methods))
    check_references(resolved, case, bundle_cases=entry.traits.background_cases)
    return CheckedSpec(
        entry=entry,
        spec=resolved,
        cautions=(
            *describe_cautions(case.cautions),
            *describe_unused(resolved, case),
            *_cautions_of_execution(resolved, entry),
            *resolver.cautions,
        ),
        evaluations=resolver.evaluations,
        features=resolver.features,
        expected=expect_time(
            resolved,
            traits,
            evaluations=resolver.evaluations,
            shapes=[grid.shape for grid in grids],
            engine=_execution(resolved, entry).engine,
            threads=entry.description.execution.threads_per_worker,
        ),
        reserved_bytes=reserved_bytes(resolved, grids),
    )


def _cautions_of_execution(spec: explain_pb2.ExplainSpec, entry: CatalogEntry) -> list[explain_pb2.Caution]:
    return differences(spec.execution, _execution(spec, entry))


def _execution(spec: explain_pb2.ExplainSpec, entry: CatalogEntry) -> explain_pb2.Execution:
    threads = entry.description.execution.threads_per_worker
    return resolve_execution(entry.model, spec, engine=entry.engine, engines=entry.engines, threads=threads)


def _fill_target(target: explain_pb2.Target, model: Model) -> None:
    target.scale = target.scale or supported_scales(model.output)[0]
    if target.WhichOneof("kind") is None:
        kind = target.scalar if model.output.kind is OutputKind.SCALAR else target.predicted
        kind.SetInParent()
    if model.output.kind is OutputKind.SEGMENTATION and target.region.WhichOneof("kind") is None:
        target.region.predicted.SetInParent()


class _Resolver:
    """Resolves the methods of one spec, each key once."""

    def __init__(self, model: Model, traits: ModelTraits, grids: Sequence[Geometry], *, one_grid: bool) -> None:
        self._model = model
        self._traits = traits
        self._shapes = [grid.shape for grid in grids]
        self._one_grid = one_grid
        self.cautions: list[explain_pb2.Caution] = []
        self.evaluations: dict[str, int] = {}
        self.features: dict[str, int] = {}

    def resolve(self, asked: method_pb2.Method, field: str) -> method_pb2.Method:
        resolved, violations = resolve_method(asked, self._model, shapes=self._shapes, one_grid=self._one_grid)
        for violation in violations:
            raise InvalidSpec(violation.reason, violation.message, field=f"{field}.{violation.field}".rstrip("."))
        if resolved.key in self.evaluations:
            raise InvalidSpec("KEY_DOUBLED", "give each method of a call a key of its own", field=f"{field}.key")
        which = resolved.WhichOneof("method") or ""
        method, params = all_methods()[which.replace("_", "-")], getattr(resolved, which)
        for remark in method.remarks(params, self._model, self._traits):
            if remark.fatal:
                raise UnsupportedByModel(remark.reason, remark.message, field=field)
            self.cautions.append(explain_pb2.Caution(code=remark.reason, description=remark.message, method_key=resolved.key))
        count = self._count(method, params)
        self.evaluations[resolved.key] = count
        grouping = getattr(params, "grouping", None)
        if isinstance(grouping, method_pb2.FeatureGrouping) and grouping.WhichOneof("kind") != "label_map":
            self.features[resolved.key] = count_features(grouping, self._shapes)
        return resolved

    def _count(self, method: Method, params: Message) -> int:
        if isinstance(method, DonorMethod):
            return method.count_donor_evaluations(params, self._shapes, donors=max(self._traits.background_cases, 1))
        return method.count_evaluations(params, self._shapes)
