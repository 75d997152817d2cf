"""Files that are replaced while the server runs, as a mounted secret is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class WatchedFiles:
    """Tells whether any of some files was replaced or written since it was asked last.

    Follows symbolic links, because Kubernetes swaps the folder that they point to.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._seen: _Signature | None = None

    def changed(self) -> bool:
        """True on the first call, and whenever a file changed, came or went since the call before."""
        found = tuple(_signature(path) for path in self._paths)
        changed, self._seen = found != self._seen, found
        return changed


def _signature(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
