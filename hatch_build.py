"""Build hook: the stubs are made from the contract at install time."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface[Any]):
    """Runs proto/generate.py before files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the stubs below proto/python."""
        runpy.run_path(str(Path(self.root) / "proto" / "generate.py"))["generate"]()
