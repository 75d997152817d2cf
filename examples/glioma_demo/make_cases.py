"""Write the shipped test cases and the bundle's background cases: `python -m examples.glioma_demo.make_cases`."""

from rich.console import Console

from examples.glioma_demo.bundle import BACKGROUND_CASES, BUNDLE
from examples.glioma_demo.case import draw_shapes, make_case
from examples.glioma_demo.case_files import CASES, write_case, write_volumes
from examples.glioma_demo.dataset import BACKGROUND_SEEDS, SHIPPED_SEEDS
from examples.glioma_demo.tumour import Shape

# Shapes on T1c and FLAIR; in case-2 and case-4 FLAIR misleads.
_SHIPPED: tuple[tuple[Shape, Shape], ...] = (
    ("irregular", "irregular"),
    ("irregular", "round"),
    ("round", "round"),
    ("round", "irregular"),
)


def main() -> None:
    """Write all cases: the first seeds of each range that show the shapes wanted, not picked by how well they work."""
    console = Console()
    taken: set[int] = set()
    for number, (t1c, flair) in enumerate(_SHIPPED, start=1):
        seed = _first_seed(t1c, flair, taken=taken)
        taken.add(seed)
        write_case(make_case(seed), CASES / f"case-{number}")
        console.print(f"case-{number}: seed {seed}, T1c {t1c}, FLAIR {flair}")
    for index, seed in zip(range(BACKGROUND_CASES), BACKGROUND_SEEDS, strict=False):
        write_volumes(make_case(seed), BUNDLE / "background" / str(index))
        console.print(f"background {index}: seed {seed}")


def _first_seed(t1c: Shape, flair: Shape, *, taken: set[int]) -> int:
    wanted = {"t1": "round", "t1c": t1c, "t2": "round", "flair": flair}
    return next(seed for seed in SHIPPED_SEEDS if seed not in taken and draw_shapes(seed) == wanted)


if __name__ == "__main__":
    main()
