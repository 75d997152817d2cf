"""CatalogService: models, methods, and what an explanation would cost."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf import duration_pb2
from voxplain.errors import InvalidSpec
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc, explain_pb2, method_pb2

from voxplain_server.methods import all_methods
from voxplain_server.methods.method import Method
from voxplain_server.methods.plan import cut
from voxplain_server.methods.variant import variant_of
from voxplain_server.service.admission import Admission
from voxplain_server.service.call_observer import CallObserver
from voxplain_server.service.check_spec import check_spec
from voxplain_server.service.status import abort_with, conceal
from voxplain_server.settings import Limits
from voxplain_server.workers.catalog import Catalog
from voxplain_server.workers.execution import resolve_execution

DEFAULT_PAGE = 100
MAX_PAGE = 1000

Answer = TypeVar("Answer")
Context = grpc.aio.ServicerContext[Any, Any]


class CatalogAnswers(catalog_pb2_grpc.CatalogServiceServicer):
    """Serves the catalogue as it is at the moment."""

    def __init__(self, *, catalog: Catalog, admission: Admission, limits: Limits, observer: CallObserver) -> None:
        self._catalog = catalog
        self._admission = admission
        self._limits = limits
        self._observer = observer

    async def ListModels(  # noqa: N802
        self, request: catalog_pb2.ListModelsRequest, context: Context
    ) -> catalog_pb2.ListModelsResponse:
        """One page of models, by name."""
        return await self._answer(context, lambda: self._list_models(request))

    async def GetModel(  # noqa: N802
        self, request: catalog_pb2.GetModelRequest, context: Context
    ) -> catalog_pb2.GetModelResponse:
        """One version of one model."""
        return await self._answer(
            context,
            lambda: catalog_pb2.GetModelResponse(model=self._catalog.find(request.name, request.version).description),
        )

    async def ListMethods(  # noqa: N802
        self, request: catalog_pb2.ListMethodsRequest, context: Context
    ) -> catalog_pb2.ListMethodsResponse:
        """Every method."""
        return await self._answer(context, _list_methods)

    async def EstimateExplanation(  # noqa: N802
        self, request: catalog_pb2.EstimateExplanationRequest, context: Context
    ) -> catalog_pb2.EstimateExplanationResponse:
        """What a spec would cost; refuses what Explain would refuse on it."""
        return await self._answer(context, lambda: self._estimate(request.spec))

    async def _answer(self, context: Context, answer: Callable[[], Answer]) -> Answer:
        try:
            return answer()
        except Exception as fault:
            error = conceal(fault, self._observer)
        await abort_with(context, error)

    def _list_models(self, request: catalog_pb2.ListModelsRequest) -> catalog_pb2.ListModelsResponse:
        names = self._catalog.names
        start = bisect_right(names, _name_in(request.page_token)) if request.page_token else 0
        stop = start + min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        response = catalog_pb2.ListModelsResponse(models=[self._summary(name) for name in names[start:stop]])
        if stop < len(names):
            response.next_page_token = base64.urlsafe_b64encode(names[stop - 1].encode()).decode()
        return response

    def _summary(self, name: str) -> catalog_pb2.ModelSummary:
        entries = self._catalog.versions(name)
        return catalog_pb2.ModelSummary(
            name=name,
            versions=[entry.model.version for entry in entries],
            description=entries[0].model.description if entries else "",
            refused_versions=self._catalog.refused(name),
        )

    def _estimate(self, spec: explain_pb2.ExplainSpec) -> catalog_pb2.EstimateExplanationResponse:
        checked = check_spec(spec, self._catalog, self._limits)
        entry = checked.entry
        execution = resolve_execution(entry.model, checked.spec, engine=entry.engine, engines=entry.engines, threads=1)
        plans = []
        for method in checked.spec.methods:
            evaluations = checked.evaluations[method.key]
            gradients = all_methods()[(method.WhichOneof("method") or "").replace("_", "-")].needs_gradients
            plans.append(
                explain_pb2.MethodPlan(
                    method_key=method.key,
                    evaluations=evaluations,
                    blocks=0 if gradients else len(cut(evaluations, execution.block_size)),
                    estimated_duration=_duration(checked.expected.methods[method.key]),
                    features=checked.features.get(method.key),
                    engine=_gradient_engine(entry.engine) if gradients else execution.engine,
                )
            )
        return catalog_pb2.EstimateExplanationResponse(
            plans=plans,
            estimated_duration=_duration(checked.expected.total),
            preparing_duration=_duration(checked.expected.preparing),
            transfer_duration=_duration(checked.expected.transfer),
            reserved_bytes=checked.reserved_bytes,
            queue_position=self._admission.ahead,
        )


def _list_methods() -> catalog_pb2.ListMethodsResponse:
    return catalog_pb2.ListMethodsResponse(methods=[_describe(method) for method in all_methods().values()])


def _describe(method: Method) -> catalog_pb2.MethodDescription:
    defaults = method_pb2.Method(key=method.name)
    member = getattr(defaults, method.name.replace("-", "_"))
    member.CopyFrom(method.defaults(None))
    member.SetInParent()
    return catalog_pb2.MethodDescription(
        name=method.name,
        summary=method.summary,
        citation=method.citation,
        defaults=defaults,
        assumptions=method.assumptions,
        needs_gradients=method.needs_gradients,
        is_signed=method.signed,
        shared_map=method.shared_map,
        variant_of=variant_of(method),
    )


def _gradient_engine(engine: str) -> str:
    """The engine of the twin, on the device where the evaluations run."""
    return f"torch-{engine.rpartition('-')[2]}"


def _name_in(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidSpec(
            "PAGE_TOKEN_INVALID", "send next_page_token of the answer before, or nothing", field="page_token"
        ) from None


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
