"""`voxplain methods`: what each method is, its paper, its parameters."""

from __future__ import annotations

import argparse

from google.protobuf import text_format
from voxplain.v1 import catalog_pb2

from voxplain_client.command.connection_options import add_connection_options, open_client
from voxplain_client.command.parameter import list_parameters
from voxplain_client.command.usage_fault import UsageFault


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("methods", help="list the methods, or tell all about some")
    parser.add_argument("name", nargs="*", help="a method's name, for its defaults and assumptions")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List all methods in short, or those named at length."""
    with open_client(options) as client:
        found = {method.name: method for method in client.methods()}
    if not options.name:
        width = max((len(name) for name in found), default=0)
        for name, method in found.items():
            print(f"{name:{width}}  {method.summary}")
        return 0
    for name in options.name:
        if name not in found:
            raise UsageFault("methods", f"methods are {', '.join(found)}")
        _tell(found[name])
    return 0


def _tell(method: catalog_pb2.MethodDescription) -> None:
    print(f"{method.name}: {method.summary}")
    if method.variant_of:
        print(f"  variant of  {method.variant_of}: runs where it is named, not among `--method all`")
    print(f"  paper       {method.citation}")
    print(f"  gradients   {'needed' if method.needs_gradients else 'not needed'}")
    print(f"  sign        {'has a meaning' if method.is_signed else 'none: values tell strength only'}")
    print(f"  maps        {'one shared by the modalities of an input' if method.shared_map else 'one for each modality'}")
    for assumption in method.assumptions:
        print(f"  assumes     {assumption}")
    chosen = method.defaults.WhichOneof("method")
    if chosen is not None:
        message = getattr(method.defaults, chosen)
        print(f"  defaults    {text_format.MessageToString(message, as_one_line=True) or 'no parameters'}")
        for parameter in list_parameters(message.DESCRIPTOR):
            print(f"  --set       {method.name}.{parameter}=...")
