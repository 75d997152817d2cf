"""`voxplain explain`: the options, and what they mean for the library."""

from __future__ import annotations

import argparse
from pathlib import Path

from voxplain_client.command.connection_options import add_connection_options
from voxplain_client.command.usage_fault import UsageFault

_FROM_THE_RECORD = ("model", "version", "method", "set", "target", "scale", "seed", "grid")
_BUDGET = ("max_evaluations", "target_error", "deadline")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "explain",
        help="explain one case and write maps, record and overview",
        description="Explains one case and writes DIR/<key>/<modality>.nii.gz, DIR/record.json and DIR/overview.png.",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add_connection_options(parser)
    add("--model", metavar="NAME", help="as `voxplain models` lists it")
    add("--version", metavar="V", help="default: the highest number")
    add("--volume", action="append", default=[], metavar="MODALITY=FILE", help="NIfTI file of one modality; one for each")
    add("--method", action="append", default=[], metavar="[KEY=]NAME|all", help="repeat for several; KEY tells two runs apart")
    add("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="for example occlusion.window=11")
    add("--target", metavar="NAME|INDEX|contrast:A,B", help="default: the predicted class")
    add("--scale", choices=("logit", "probability", "raw"), help="scale on which the score is explained")
    add(
        "--labels",
        action="append",
        default=[],
        metavar="FILE|MODALITY=FILE",
        help="label map whose regions are the features of every method without a grouping of its own",
    )
    add("--mask", type=Path, metavar="FILE", help="region over which a segmentation's score is averaged")
    add(
        "--baseline",
        action="append",
        default=[],
        metavar="MODALITY=FILE",
        help='what stands for "absent" in every method without a baseline of its own',
    )
    add(
        "--background",
        action="append",
        default=[],
        metavar="MODALITY=FILE",
        help="other cases, in case order: donors of feature-permutation, and of methods with --set KEY.baseline.background",
    )
    add("--seed", type=_count, metavar="N", help="seeds every random draw")
    add("--snapshots", type=float, metavar="SECONDS", help="write early maps at least so far apart")
    add("--max-evaluations", type=_count, metavar="N", help="stop each method after so many evaluations")
    add("--target-error", type=float, metavar="E", help="stop each method at this standard error")
    add("--deadline", type=float, metavar="SECONDS", help="stop and deliver what is there")
    add("--grid", choices=("input", "model"), help="grid of the maps; default: input")
    add("--replay", type=Path, metavar="RECORD", help="do the explanation of a record.json again and compare the bytes")
    add("--outline", type=Path, metavar="FILE", help="mask whose border is drawn in the overview")
    add("--slice", metavar="N|MMmm", help="slice of the overview: an index from 0, or a position such as 12mm")
    add("--convention", choices=("radiological", "neurological"), default="radiological", help="left and right in the overview")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    add("--overwrite", action="store_true", help="replace the explanation that DIR holds: its maps are removed")


def check_options(options: argparse.Namespace) -> None:
    """Refuse what does not go together.

    Raises:
        UsageFault: naming the option.
    """
    if options.replay is not None:
        for name in (*_FROM_THE_RECORD, *_BUDGET):
            if getattr(options, name) not in (None, []):
                raise UsageFault(f"--{name.replace('_', '-')}", "with --replay this comes from the record: leave it out")
        return
    for name in ("model", "volume", "method"):
        if not getattr(options, name):
            raise UsageFault(f"--{name}", "is required")


def read_slice(text: str | None) -> int | float | None:
    """An index, or a position in mm as float.

    Raises:
        UsageFault: neither.
    """
    if text is None:
        return None
    try:
        return float(text.removesuffix("mm")) if text.endswith("mm") else int(text)
    except ValueError:
        raise UsageFault("--slice", "write an index such as 40, or a position such as 12mm") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError("a whole number from 0 to 2^64 - 1 is wanted")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Explain. Returns the exit code: 0 done, 1 a method failed or a replay differs, 3 the server was lost."""
    # Imports here, because other sub-commands and the help need no imaging packages.
    from voxplain_client.command.explain_run import ExplainRun

    check_options(options)
    return ExplainRun(options).run()
