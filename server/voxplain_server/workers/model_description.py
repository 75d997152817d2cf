"""A model as clients see it."""

from __future__ import annotations

from voxplain.v1 import catalog_pb2, explain_pb2

from voxplain_server.methods import all_methods
from voxplain_server.methods.method import DonorMethod, Method
from voxplain_server.methods.variant import variant_of
from voxplain_server.models.cautions import describe_cautions
from voxplain_server.models.grid_fit import describe_fit
from voxplain_server.models.model import Model, OutputKind
from voxplain_server.models.target_check import supported_scales
from voxplain_server.models.traits import ModelTraits
from voxplain_server.workers.method_run import duration

_KINDS = {
    OutputKind.CLASSES: catalog_pb2.OUTPUT_KIND_CLASSES,
    OutputKind.SIGMOID: catalog_pb2.OUTPUT_KIND_SIGMOID,
    OutputKind.SCALAR: catalog_pb2.OUTPUT_KIND_SCALAR,
    OutputKind.SEGMENTATION: catalog_pb2.OUTPUT_KIND_SEGMENTATION,
}


def describe_model(model: Model, traits: ModelTraits) -> catalog_pb2.Model:
    """Describe a model; `execution` is left to the server that knows its threads."""
    return catalog_pb2.Model(
        name=model.name,
        version=model.version,
        description=model.description,
        digest=model.digest,
        modalities=[
            catalog_pb2.Modality(
                name=modality.name,
                input=modality.input_name,
                shape=[size or 0 for size in modality.shape],
                orientation=modality.orientation or "",
                spacing_mm=modality.spacing_mm or (),
                fit=describe_fit(modality.fit),
                normalisation="" if modality.normalisation == "none" else modality.normalisation,
            )
            for modality in model.modalities
        ],
        classes=model.output.classes,
        output_kind=_KINDS[model.output.kind],
        fusion=catalog_pb2.FUSION_LATE if model.late_fusion else catalog_pb2.FUSION_EARLY,
        scales=supported_scales(model.output),
        methods=[_availability(method, model, traits) for method in all_methods().values()],
        layers=traits.cam_layers,
        default_layers=traits.default_cam_layers,
        grouping_modality=model.grouping_modality or _second(model),
        background_cases=traits.background_cases,
        decision_threshold=model.output.decision_threshold,
        twin_parity=traits.twin_parity,
        batched=model.batched,
        cautions=describe_cautions(model.cautions),
        evaluation_duration=duration(traits.evaluation_seconds),
    )


def _availability(method: Method, model: Model, traits: ModelTraits) -> catalog_pb2.MethodAvailability:
    remarks = method.remarks(method.defaults(model), model, traits)
    # A request may bring what is lacking; the model alone does not do.
    lacks_donors = isinstance(method, DonorMethod) and not traits.background_cases
    return catalog_pb2.MethodAvailability(
        method=method.name,
        available=not lacks_donors and not any(remark.fatal for remark in remarks),
        reasons=[explain_pb2.Caution(code=remark.reason, description=remark.message) for remark in remarks],
        variant_of=variant_of(method),
    )


def _second(model: Model) -> str:
    names = model.modality_names
    return names[1] if len(names) > 1 else names[0]
