"""A bundle that names a remote model becomes a checked Model: metadata.json and what the inference server tells, laid side by
side."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from voxplain_server.models.bundle_place import BundlePlace, onnx_files
from voxplain_server.models.input_layout import lay_out_inputs
from voxplain_server.models.loading import describe_loaded
from voxplain_server.models.metadata import read_metadata
from voxplain_server.models.model import Model
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.output_reading import read_output
from voxplain_server.models.remote_access import RemoteAccess
from voxplain_server.models.remote_model import RemoteModel
from voxplain_server.models.remote_options import RemoteOptions
from voxplain_server.models.remote_signature import RemoteSignature, ask_signature


def names_remote(place: BundlePlace) -> bool:
    """Whether a bundle names a remote model.

    Raises:
        ModelRefused: its metadata is not what it must be.
    """
    return read_metadata(place.metadata_path()).options.remote is not None


def load_remote_model(place: BundlePlace, *, access: RemoteAccess) -> Model:
    """Read one version of a model that another server holds, and ask that server what it reads and answers.

    Args:
        place: where the bundle lies.
        access: which servers may be asked.

    Raises:
        ModelRefused: metadata, the operator's settings or the server's answer are not what they must be.
    """
    place.check_names()
    metadata = read_metadata(place.metadata_path())
    options = metadata.options.remote
    if options is None:
        raise ModelRefused("REMOTE_MISSING", "metadata.json names no remote model any more.")
    if (place.folder / "model.onnx").is_file() or onnx_files(place.folder / "models"):
        told = "The bundle holds an ONNX file and names a remote model: nobody knows which to explain. Take one of them out."
        raise ModelRefused("REMOTE_AND_FILE", told)
    if metadata.options.cam_layers:
        raise ModelRefused("CAM_LAYER_UNKNOWN", "voxplain.cam_layers has no meaning for a remote model. Take it out.")
    with access.open_channel(options.endpoint, max_response_bytes=options.max_response_bytes) as channel:
        signature = ask_signature(channel, metadata, options)
    layout = lay_out_inputs(signature.graph, metadata)
    sliced = any(spec.slice_axis is not None for spec in layout.inputs)
    output = read_output(signature.graph, metadata, spatial=layout.modalities[0].shape, sliced=sliced)
    return describe_loaded(
        place,
        metadata,
        signature.graph,
        layout=layout,
        output=output,
        source=place.metadata_path(),
        digest=_digest(metadata.digest, signature),
        remote=_remote(options, signature, signature.inputs),
    )


def _digest(metadata: str, signature: RemoteSignature) -> str:
    """SHA-256 over both digests: the weights lie where nobody here can read them."""
    return hashlib.sha256(f"{metadata} {signature.reported}".encode()).hexdigest()


def _remote(options: RemoteOptions, signature: RemoteSignature, names: Mapping[str, str]) -> RemoteModel:
    return RemoteModel(
        endpoint=options.endpoint,
        name=options.model,
        version=options.version,
        inputs=tuple(names[name] for name in signature.graph.inputs),
        output=signature.output,
        reported=signature.reported,
        fixed_batch=signature.fixed_batch,
        max_batch=options.batch_size,
        requests_in_flight=options.requests_in_flight,
        request_seconds=options.request_seconds,
        retry_share=options.retry_share,
        retry_floor=options.retry_floor,
        max_response_bytes=options.max_response_bytes,
    )
