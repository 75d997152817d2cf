"""`voxplain models`: what the server can explain."""

from __future__ import annotations

import argparse

from voxplain_client.command.connection_options import add_connection_options, open_client


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("models", help="list the models of the server")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List models, and versions that the server refused with the reason."""
    with open_client(options) as client:
        models = client.models()
    for model in models:
        print(f"{model.name}  versions {', '.join(model.versions) or 'none'}  {model.description}".rstrip())
        for refused in model.refused_versions:
            print(f"  version {refused.version} was refused: {refused.reason}: {refused.description}")
    if not models:
        print("the server holds no model")
    return 0
