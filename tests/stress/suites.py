"""Rows whose cases are tests of their own: they are run and counted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.stress.row import Row, Scale

ROOT = Path(__file__).parents[2]


def hostile_models(scale: Scale) -> list[Row]:
    """Bundles that were made to harm."""
    return [
        _row(
            "hostile model files",
            "each refused with its reason; server unharmed",
            "tests/server/workers/test_hostile_bundles.py",
            "tests/server/graph/test_onnx_file.py",
        )
    ]


def access(scale: Scale) -> list[Row]:
    """TLS and tokens."""
    return [
        _row(
            "misuse of TLS and tokens",
            "every case refused before a byte of the body is read",
            "tests/server/service/test_guard.py",
            "tests/server/service/test_token_check.py",
            "tests/server/service/test_certificates.py",
        )
    ]


def _row(what: str, goal: str, *paths: str) -> Row:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *paths], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "pytest said nothing"
    passed = re.search(r"(\d+) passed", last)
    return Row(what, f"{passed[1] if passed else 0} tests", goal, last, done.returncode == 0)
