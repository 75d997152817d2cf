"""Virtual environments of other projects: none of them can share voxplain's, because they want another protobuf."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.neighbours.neighbour import Outcome

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = Path(__file__).resolve().parent / "foreign"
SCRIPT_SECONDS = 300.0
_TOLD_CHARACTERS = 2000


class EnvironmentNotMade(RuntimeError):
    """pip could not install what was asked for; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment below `.neighbours/`, kept between runs as long as its requirements stay the same.

    Attributes:
        name: of its folder.
        requirements: as pip takes them.
    """

    name: str
    requirements: Sequence[str]

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return ROOT / ".neighbours" / self.name

    def program(self, name: str = "python") -> str:
        """The path of one of its programs."""
        return str(self.folder / "bin" / name)

    def make(self) -> None:
        """Install it, unless it is there.

        Raises:
            EnvironmentNotMade: pip ended with an error.
        """
        marker, wanted = self.folder / "requirements.json", json.dumps(list(self.requirements))
        if marker.is_file() and marker.read_text() == wanted:
            return
        _run([sys.executable, "-m", "venv", "--clear", str(self.folder)])
        _run([self.program(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.requirements])
        marker.write_text(wanted)

    def check(self, script: str, **told: Any) -> Iterator[Outcome]:
        """Run a script of `foreign/` in it, and hand on the checks that it reports.

        The script gets `told` as JSON in its one argument. It writes one JSON line `{"title": ..., "fault": ...}` a
        check to its standard output and imports nothing of voxplain. That it ends with 0 is a check of its own.
        """
        done = subprocess.run(
            [self.program(), "-P", str(FOREIGN / script), json.dumps(told)],
            capture_output=True,
            text=True,
            timeout=SCRIPT_SECONDS,
            check=False,
        )
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                yield Outcome(**json.loads(line))
        fault = "" if done.returncode == 0 else f"it ended with {done.returncode}: {done.stderr[-_TOLD_CHARACTERS:]}"
        yield Outcome(f"{script} ends well", fault)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentNotMade(done.stdout[-_TOLD_CHARACTERS:])
