"""The languages: what each needs, how its driver is built, and how it is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.driver import ROOT


class BuildFailed(RuntimeError):
    """A driver could not be built; the message ends with what the build said."""


@dataclass(frozen=True, slots=True)
class Language:
    """One client.

    Attributes:
        name: for the table; `make client-<name>` builds it.
        command: starts the driver, in the repository's root.
        programs: must be on the path.
        files: must be there.
    """

    name: str
    command: Sequence[str]
    programs: Sequence[str] = ()
    files: Sequence[str] = ()

    @property
    def present(self) -> bool:
        """Whether its toolchain is there."""
        return all(map(shutil.which, self.programs)) and all(Path(each).exists() for each in self.files)

    def build(self) -> None:
        """Build the library and its driver.

        Raises:
            BuildFailed: the build ended with an error.
        """
        if self.name == "python":
            return
        venv = Path(sys.prefix)
        done = subprocess.run(
            ["make", f"client-{self.name}", f"VENV={venv}", f"--assume-old={venv / 'ready'}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildFailed(done.stdout[-4000:])


LANGUAGES = (
    Language("python", (sys.executable, "-m", "tests.conformance.python_driver")),
    Language("typescript", ("node", "client/typescript/build/conformance/driver.js"), programs=("node", "npm")),
    Language(
        "go",
        ("client/go/build/driver",),
        programs=("go",),
        files=("/usr/share/gocode/src/google.golang.org/grpc/cmd/protoc-gen-go-grpc",),
    ),
    Language(
        "cpp",
        ("client/cpp/build/conformance_driver",),
        programs=("cmake", "g++", "protoc", "grpc_cpp_plugin"),
        files=("/usr/include/grpcpp/grpcpp.h",),
    ),
    Language(
        "java",
        ("client/java/build/driver",),
        programs=("javac", "protoc", "grpc_java_plugin"),
        files=("/usr/share/java/grpc-netty.jar",),
    ),
)
"""Python first: the others are compared with it."""
