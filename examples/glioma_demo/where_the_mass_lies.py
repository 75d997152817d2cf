"""Where each method's map has its mass: `python -m examples.glioma_demo.where_the_mass_lies demo-out --case DIR`.

Reads `OUT/<method>/<modality>.nii.gz`, or `OUT/<method>/shared.nii.gz`, as the client writes them, and the tumour masks
of the case that was explained.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from examples.glioma_demo.case_files import CASES, read_tumours, read_volumes, read_voxels
from examples.glioma_demo.mass import SHARED, Shares, share_mass
from examples.glioma_demo.synthesis import MODALITIES, Modality


@dataclass(frozen=True, slots=True)
class MethodMass:
    """One method's shares of positive and of absolute mass, and whether its map is one for all modalities."""

    method: str
    positive: Shares
    absolute: Shares
    shared: bool


def read_maps(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The final maps in one method's folder by modality, or `shared`; empty if the method wrote none."""
    names = [*MODALITIES, SHARED]
    return {name: read_voxels(folder / f"{name}.nii.gz") for name in names if (folder / f"{name}.nii.gz").exists()}


def weigh_method(
    method: str, maps: Mapping[str, NDArray[np.float32]], tumours: Mapping[Modality, NDArray[np.bool_]]
) -> MethodMass:
    """Share out a method's positive and absolute mass. For an unsigned map both are the same."""
    return MethodMass(
        method=method,
        positive=share_mass({name: np.maximum(voxels, 0) for name, voxels in maps.items()}, tumours),
        absolute=share_mass({name: np.abs(voxels) for name, voxels in maps.items()}, tumours),
        shared=SHARED in maps,
    )


def weigh_all(out: Path, tumours: Mapping[Modality, NDArray[np.bool_]]) -> list[MethodMass]:
    """Every method under `out` that wrote maps; first the one whose positive mass lies most on T1c's tumour."""
    folders = sorted(folder for folder in out.iterdir() if folder.is_dir())
    read = {folder.name: read_maps(folder) for folder in folders}
    masses = [weigh_method(name, maps, tumours) for name, maps in read.items() if maps]
    return sorted(masses, key=lambda mass: -np.nan_to_num(mass.positive.deciding))


def tabulate(masses: list[MethodMass], *, even: Shares) -> Table:
    """One row per method; the last row is a map that is the same on every brain voxel, which knows nothing."""
    title = "Where each map lies, in % of its positive (pos.) and absolute values (abs.)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("method", no_wrap=True)
    for sign in ("pos.", "abs."):
        for place in ("on T1c's\ntumour", "on other\ntumours", "else-\nwhere"):
            table.add_column(f"{sign}\n{place}", justify="right")
    for number, mass in enumerate(masses):
        if number and number % 5 == 0:
            table.add_section()
        name = f"{mass.method} *" if mass.shared else mass.method
        table.add_row(name, *_percent(mass.positive), *_percent(mass.absolute))
    table.add_section()
    table.add_row("an even map", *_percent(even), *_percent(even), style="dim")
    table.caption = "the method whose positive values lie most on T1c's tumour comes first"
    if any(mass.shared for mass in masses):
        table.caption += "\n* one map for all modalities: T1c's outline first, then the others'"
    table.caption_justify = "left"
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that the client wrote")
    parser.add_argument("--case", type=Path, default=CASES / "case-1", help="folder of the case that was explained")
    arguments = parser.parse_args()
    if not arguments.out.is_dir():
        parser.error("OUT is not a folder: name the one given to `voxplain explain --out`")
    tumours = read_tumours(arguments.case)
    masses = weigh_all(arguments.out, tumours)
    if not masses:
        parser.error("OUT holds no maps: explain a case first")
    brain = {name: (voxels != 0).astype(np.float32) for name, voxels in read_volumes(arguments.case).items()}
    Console().print(tabulate(masses, even=share_mass(dict(brain.items()), tumours)))


def _percent(shares: Shares) -> list[str]:
    values = (shares.deciding, shares.other, shares.outside)
    return ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in values]


if __name__ == "__main__":
    main()
