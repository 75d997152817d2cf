"""What a folder looks like from outside, to see whether it changes."""

from __future__ import annotations

import os
from pathlib import Path

MAX_FILES = 1000

FolderState = tuple[tuple[str, int, int, int, int], ...]
"""Name, device, inode, size and time of change of every file; equal states: nothing was written in between."""


def folder_state(folder: Path) -> FolderState:
    """The state of a version's folder: its files and those of its subfolders, the first 1000 of them; () where it is gone."""
    found = []
    for place, folders, files in os.walk(folder, onerror=None):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            try:
                # What links point to: a mounted secret or configuration is swapped behind them.
                status = path.stat()
            except OSError:
                continue
            found.append((str(path.relative_to(folder)), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
            if len(found) >= MAX_FILES:
                return tuple(found)
    return tuple(found)
