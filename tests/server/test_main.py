"""What the command `voxplain-server` says before it serves."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def run_server_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voxplain_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_version_is_told_without_models() -> None:
    told = run_server_command("--version")
    assert (told.returncode, told.stdout) == (0, f"voxplain-server {version('voxplain')}\n")


def test_settings_that_cannot_be_end_it_with_their_names() -> None:
    told = run_server_command("--models", "no-such-folder", "--workers", "0")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.startswith("voxplain-server: ")
    assert "no-such-folder" not in told.stderr
