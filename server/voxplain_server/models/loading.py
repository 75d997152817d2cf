"""A bundle on disk becomes a checked Model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from voxplain_server.graph.graph_reader import read_graph
from voxplain_server.graph.model_file_error import ModelFileError
from voxplain_server.graph.onnx_file import read_onnx_file
from voxplain_server.graph.onnx_graph import Graph
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.input_layout import InputLayout, lay_out_inputs
from voxplain_server.models.metadata import Metadata, read_metadata
from voxplain_server.models.model import Activation, Model, OutputSpec
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.output_reading import read_output
from voxplain_server.models.remote_model import RemoteModel

MAX_MODEL_BYTES = 4 << 30
_DESCRIPTION_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that may be served.

    Attributes:
        model: its description.
        proto: the ONNX file, self-contained.
        graph: the same, as the twin and the locality analysis read it.
    """

    model: Model
    proto: onnx.ModelProto
    graph: Graph


def load_model(place: BundlePlace, *, max_bytes: int = MAX_MODEL_BYTES) -> LoadedModel:
    """Read and check one version of a model.

    Args:
        place: where it lies.
        max_bytes: most bytes of the ONNX file with its external data.

    Raises:
        ModelRefused: metadata, graph or files are not what they must be; the message tells what to change.
    """
    place.check_names()
    metadata = read_metadata(place.metadata_path())
    onnx_path = place.onnx_path()
    try:
        file = read_onnx_file(onnx_path, max_bytes=max_bytes)
        graph = read_graph(file.proto)
    except ModelFileError as error:
        raise ModelRefused(error.reason, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, RuntimeError, RecursionError):
        raise ModelRefused("CORRUPT_MODEL_FILE", "The graph of the model file cannot be read. Export it again.") from None
    layout = lay_out_inputs(graph, metadata)
    sliced = any(spec.slice_axis is not None for spec in layout.inputs)
    output = read_output(graph, metadata, spatial=layout.modalities[0].shape, sliced=sliced)
    model = describe_loaded(place, metadata, graph, layout=layout, output=output, source=onnx_path, digest=file.digest)
    return LoadedModel(model, file.proto, graph)


def describe_loaded(
    place: BundlePlace,
    metadata: Metadata,
    graph: Graph,
    *,
    layout: InputLayout,
    output: OutputSpec,
    source: Path,
    digest: str,
    remote: RemoteModel | None = None,
) -> Model:
    """A model's description, once its graph and its metadata have been laid side by side.

    Args:
        place, metadata, graph: what was read.
        layout, output: what became of it.
        source: the file that was read.
        digest: of the model.
        remote: where it is, if it is not here.

    Raises:
        ModelRefused: CAM_LAYER_UNKNOWN, MODALITY_NAMES, BACKGROUND_INCOMPLETE or BACKGROUND_MISSING.
    """
    names = tuple(modality.name for modality in layout.modalities)
    _check_options(graph, metadata, names)
    return Model(
        name=place.name,
        version=place.version,
        folder=place.folder,
        onnx_path=source,
        digest=digest,
        metadata_digest=metadata.digest,
        description=" ".join(metadata.description.split())[:_DESCRIPTION_CHARACTERS],
        modalities=layout.modalities,
        inputs=layout.inputs,
        output=output,
        batched=layout.free_batch and output.has_batch_axis and _free_batch(graph, output),
        cam_layers=metadata.options.cam_layers,
        grouping_modality=metadata.options.grouping_modality,
        background_cases=_background_cases(place.folder, metadata, names),
        cautions=(*(("REMOTE_MODEL",) if remote is not None else ()), *_cautions(layout, output)),
        remote=remote,
    )


def _check_options(graph: Graph, metadata: Metadata, names: tuple[str, ...]) -> None:
    if not all(graph.has_value(layer) for layer in metadata.options.cam_layers):
        message = (
            "voxplain.cam_layers names a value that the graph does not have. Leave it out, and `voxplain-server check` lists "
            "those that Grad-CAM could read."
        )
        raise ModelRefused("CAM_LAYER_UNKNOWN", message)
    if metadata.options.grouping_modality not in (None, *names):
        message = f"voxplain.grouping_modality is none of the model's modalities: {', '.join(names)}."
        raise ModelRefused("MODALITY_NAMES", message)


def _free_batch(graph: Graph, output: OutputSpec) -> bool:
    shape = graph.shape(output.score_name) or graph.shape(output.name)
    return shape is not None and len(shape) > 0 and not isinstance(shape[0], int)


def _background_cases(folder: Path, metadata: Metadata, names: tuple[str, ...]) -> tuple[dict[str, Path], ...]:
    root = folder.resolve()
    cases = []
    for case in metadata.options.background_cases:
        if set(case) != set(names):
            message = f"Every case of voxplain.background_cases needs one file for each of the modalities {', '.join(names)}."
            raise ModelRefused("BACKGROUND_INCOMPLETE", message)
        cases.append({name: _file_below(root, case[name]) for name in names})
    return tuple(cases)


def _file_below(root: Path, relative: str) -> Path:
    pure = PurePosixPath(relative)
    inside = not pure.is_absolute() and ".." not in pure.parts and "\0" not in relative and "\\" not in relative
    path = (root / pure).resolve() if inside else root
    if not (inside and path.is_relative_to(root) and path.is_file() and path.name.endswith((".nii", ".nii.gz"))):
        message = "voxplain.background_cases must name .nii or .nii.gz files below the version's folder, by relative paths."
        raise ModelRefused("BACKGROUND_MISSING", message)
    return path


def _cautions(layout: InputLayout, output: OutputSpec) -> tuple[str, ...]:
    found = []
    if any(modality.orientation is None for modality in layout.modalities):
        found.append("ORIENTATION_UNCHECKED")
    if any(modality.spacing_mm is None for modality in layout.modalities):
        found.append("SPACING_UNCHECKED")
    if output.activation is Activation.UNKNOWN:
        found.append("ACTIVATION_UNKNOWN")
    return tuple(found)
