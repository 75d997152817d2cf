"""Make the Python stubs from the .proto files beside this script.

Used by the build (hatch_build.py) and by `make stubs`. What it writes is never committed.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent
PYTHON_ROOT = PROTO_ROOT / "python"


class StubsNotMade(RuntimeError):
    """protoc refused the contract; its own message is on standard error."""


def generate(out: Path = PYTHON_ROOT) -> list[Path]:
    """Write `*_pb2.py`, `*_pb2_grpc.py` and their type stubs under `out` and return the .proto files read.

    Raises:
        StubsNotMade: protoc ended with an error.
    """
    sources = sorted((PROTO_ROOT / "voxplain").rglob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    arguments = [
        "protoc",
        f"-I{PROTO_ROOT}",
        f"-I{well_known}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *(str(source) for source in sources),
    ]
    if protoc.main(arguments) != 0:
        raise StubsNotMade("protoc could not compile the contract; see its message above")
    for folder in {out / source.relative_to(PROTO_ROOT).parent for source in sources}:
        (folder / "__init__.py").write_text('"""Generated from the contract; do not edit."""\n')
        for parent in folder.relative_to(out).parents:
            marker = out / parent / "__init__.py"
            if parent.parts[:1] == ("voxplain",) and len(parent.parts) > 1 and not marker.exists():
                marker.write_text('"""Generated from the contract; do not edit."""\n')
    return sources


if __name__ == "__main__":
    made = generate()
    sys.stdout.write(f"stubs made from {len(made)} files\n")
