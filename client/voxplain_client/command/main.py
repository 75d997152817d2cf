"""The `voxplain` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from voxplain.errors import VoxplainError

from voxplain_client.command import describe, explain, methods, models
from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.connection import server_address

REFUSED = 2
INTERRUPTED = 130

_IMAGING = ("nibabel", "matplotlib", "rich")

# Fields and calls of the contract as the user of the command line knows them.
_OPTIONS = {
    **{name: f"--{name}" for name in ("model", "version", "target", "seed", "grid")},
    **{"target.scale": "--scale", "target.class_ref": "--target", "target.region": "--mask"},
    **{"snapshot_interval": "--snapshots", "budget.soft_deadline": "--deadline"},
    **{"budget.max_evaluations": "--max-evaluations", "budget.target_standard_error": "--target-error"},
}
_COMMANDS = {"ListModels": "voxplain models", "GetModel": "voxplain describe NAME", "ListMethods": "voxplain methods"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        The exit code: 0 done; 1 a method failed, or a replay gave other bytes; 2 refused, with one line that says why; 3
        the server was lost and what had ended is kept; 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except VoxplainError as error:
        print(f"voxplain: {_in_one_line(error, options)}", file=sys.stderr)
        return REFUSED
    except ModuleNotFoundError as error:
        if error.name not in _IMAGING:
            raise
        print(f"voxplain: {error.name} is not installed: in voxplain's checkout, pip install '.[imaging]'", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"voxplain: {error.strerror or 'a file cannot be written'}: check --out", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voxplain", description="Explains what deep networks see in medical volumes.")
    parser.add_argument("--version", action="version", version=f"voxplain {version('voxplain')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (explain, models, methods, describe):
        command.add_parser(commands)
    return parser


def _in_one_line(error: VoxplainError, options: argparse.Namespace) -> str:
    if isinstance(error, UsageFault):
        return f"{error.field}: {error.message}"
    field = _OPTIONS.get(error.field, error.field)
    message = " ".join(error.message.split()).rstrip(".")
    for call, command in _COMMANDS.items():
        message = message.replace(f"{call} tells", f"`{command}` tells")
    if error.reason == "ACCESS_INVALID":
        field = f"--{field.removeprefix('access.').replace('_', '-')}"
    where = f"{field}: " if field else ""
    reason = error.reason
    if reason == "CONNECTION_LOST":
        reason += f", {server_address(options.server)}"
    wait = f"; try again in {error.retry_after_s:.0f} s" if error.retry_after_s is not None else ""
    return f"{where}{message}{wait} ({reason})"
