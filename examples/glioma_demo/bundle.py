"""The model bundle: one ONNX file and its metadata in the MONAI bundle schema."""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import onnx
import torch
from torch import nn

from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.synthesis import MODALITIES
from examples.glioma_demo.tumour import SHAPES

MODEL_NAME = "glioma-demo"
MODEL_VERSION = "1"
BUNDLE = Path(__file__).parent / "models" / MODEL_NAME / MODEL_VERSION
BACKGROUND_CASES = 3
INPUT_NAME = "image"
OUTPUT_NAME = "logits"


def export_network(network: nn.Module, path: Path) -> None:
    """Write `network` as one self-contained ONNX file with a free batch axis and no softmax."""
    network.eval()
    example = torch.zeros(2, len(MODALITIES), *DEMO_GRID.shape)
    torch.onnx.export(
        network,
        (example,),
        path,
        dynamo=True,
        external_data=False,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1)}},
        verbose=False,
    )
    onnx.save(_without_traces(onnx.load(path)), path)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exporter leaves the stack trace of every node in the file, with the paths of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def write_metadata(path: Path, *, metrics: Mapping[str, float]) -> None:
    """Write metadata.json; `metrics` are the measured figures by name."""
    path.write_text(json.dumps(describe_model(metrics), indent=2) + "\n", encoding="utf-8")


def describe_model(metrics: Mapping[str, float]) -> dict[str, object]:
    """The content of metadata.json."""
    background = [
        {modality: f"background/{index}/{modality}.nii.gz" for modality in MODALITIES} for index in range(BACKGROUND_CASES)
    ]
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": "first version"},
        "monai_version": metadata.version("monai"),
        "pytorch_version": metadata.version("torch").partition("+")[0],
        "numpy_version": metadata.version("numpy"),
        "name": MODEL_NAME,
        "task": "Classification of a synthetic brain tumour as round or irregular",
        "description": (
            "A small early-fusion 3D network that reads T1, T1c, T2 and FLAIR of a synthetic case and tells the shape "
            "of the tumour as seen on T1c. FLAIR shows the same shape in 70 % of the cases, T1 and T2 tell nothing: "
            "where an honest attribution map must lie is known. After the synthetic experiment of Jin et al., Medical "
            "Image Analysis 84 (2023) 102684. The graph ends in logits, without a softmax."
        ),
        "authors": "The voxplain authors",
        "copyright": "Copyright (c) the voxplain authors",
        "data_source": (
            "Synthetic. Anatomy: MNI152 2009a (Fonov et al., NeuroImage 54 (2011) 313-327), as nilearn's BSD-3-Clause "
            "wheel carries it. Contrasts and tumours are computed; no patient's data."
        ),
        "data_type": "nifti",
        "image_classes": "4 channels, T1, T1c, T2 and FLAIR at 3 mm, brain extracted, background exactly zero",
        "pred_classes": "2 logits, 0 round, 1 irregular",
        "eval_metrics": dict(metrics),
        "intended_use": "Demonstration and test of attribution methods. Not for diagnostic use.",
        "references": [
            "Jin W, Li X, Fatehi M, Hamarneh G. Guidelines and evaluation of clinical explainable AI in medical image "
            "analysis. Medical Image Analysis 84 (2023) 102684."
        ],
        "network_data_format": {
            "inputs": {
                INPUT_NAME: {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": len(MODALITIES),
                    "spatial_shape": list(DEMO_GRID.shape),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(index): modality for index, modality in enumerate(MODALITIES)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "logits",
                    "format": "classes",
                    "num_channels": len(SHAPES),
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(index): shape for index, shape in enumerate(SHAPES)},
                }
            },
        },
        "voxplain": {
            "orientation": {INPUT_NAME: "RAS"},
            "spacing": {INPUT_NAME: {"mm": [DEMO_GRID.spacing_mm] * 3, "tolerance": 0.05}},
            "normalisation": {INPUT_NAME: "nonzero-zscore"},
            # The graph ends in logits; with this the server can also tell probabilities.
            "output": {"activation": "softmax"},
            "decision_threshold": 0.5,
            "grouping_modality": "t1c",
            "background_cases": {"declaration": "synthetic", "cases": background},
        },
    }
