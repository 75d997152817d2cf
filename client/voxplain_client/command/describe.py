"""`voxplain describe`: one model, and what works on it."""

from __future__ import annotations

import argparse

from voxplain.v1 import catalog_pb2

from voxplain_client.command.connection_options import add_connection_options, open_client
from voxplain_client.command.method_choice import reasons_in_words


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("describe", help="tell what a model reads, what it answers, and which methods work on it")
    parser.add_argument("name", help="as `voxplain models` lists it")
    parser.add_argument("--version", metavar="V", default="", help="default: the highest number")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Describe one model."""
    with open_client(options) as client:
        model = client.describe(options.name, version=options.version)
    fusion = catalog_pb2.Fusion.Name(model.fusion).removeprefix("FUSION_").lower()
    output = catalog_pb2.OutputKind.Name(model.output_kind).removeprefix("OUTPUT_KIND_").lower()
    print(f"{model.name} {model.version}: {model.description}")
    print(f"  SHA-256     {model.digest}")
    print(f"  output      {output}{': ' if model.classes else ''}{', '.join(model.classes)}")
    if model.HasField("decision_threshold"):
        print(f"  threshold   {model.decision_threshold:g}")
    print(f"  fusion      {fusion}")
    for modality in model.modalities:
        print(f"  modality    {_modality(modality)}")
    if model.HasField("twin_parity"):
        print(f"  twin parity {model.twin_parity:.2g}")
    if model.layers:
        print(f"  layers      {', '.join(model.layers)}")
        print(f"  by default  {', '.join(model.default_layers)}")
    for caution in model.cautions:
        print(f"  caution     {caution.code}: {caution.description}")
    for method in model.methods:
        verdict = "works" if method.available else "does not work"
        reasons = reasons_in_words(method)
        print(f"  {method.method:24} {verdict}{': ' if reasons else ''}{reasons}")
    return 0


def _modality(modality: catalog_pb2.Modality) -> str:
    shape = " x ".join(str(edge or "any") for edge in modality.shape)
    parts = [f"{modality.name}: {shape}"]
    if modality.orientation:
        parts.append(f"orientation {modality.orientation}")
    if modality.spacing_mm:
        parts.append("spacing " + " x ".join(f"{edge:g}" for edge in modality.spacing_mm) + " mm")
    parts.append(modality.fit or "taken as it is")
    if modality.normalisation:
        parts.append(modality.normalisation)
    return ", ".join(parts)
