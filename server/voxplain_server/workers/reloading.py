"""Keeps the catalogue in step with the models folder while calls run.

Light: runs in the front, so neither torch nor onnxruntime may be imported from here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from voxplain_server.models.bundle import find_bundles
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.folder_state import FolderState, folder_state
from voxplain_server.workers.catalog import Catalog, CatalogEntry, Refusal
from voxplain_server.workers.checking import BundleChecker
from voxplain_server.workers.pool_settings import PoolSettings

log = logging.getLogger(__name__)

REMOTE_SECONDS = 60.0
"""Time after which a version whose model another server holds is looked at again: no file here tells what happens there."""

_Key = tuple[str, str]
_Found = dict[_Key, tuple[BundlePlace, FolderState]]


class Reloader:
    """Looks at the models folder again and again.

    A version that is new or was changed is checked once it has looked the same in two looks, in a process of its own, and let
    in only if it stayed the same meanwhile. A bad one never replaces a good one. A version that is gone in two looks leaves the
    catalogue; its calls go on. A version whose model another server holds is checked again every minute. A folder in which
    nothing is left is taken for one that is not mounted: nothing is removed.

    Args:
        folder: the models folder.
        settings: as for the pool.
        changed: told after the catalogue has changed.
        checker: makes what checks.

    Attributes:
        catalog: what it keeps.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: PoolSettings,
        changed: Callable[[Catalog], None] = lambda catalog: None,
        checker: Callable[[PoolSettings], BundleChecker] = BundleChecker,
    ) -> None:
        self.catalog = Catalog()
        self._folder = folder
        self._settings = settings
        self._changed = changed
        self._make_checker = checker
        self._judged: dict[_Key, FolderState] = {}
        self._remote_at: dict[_Key, float] = {}
        self._before: _Found = {}
        self._empty_told = False

    async def fill(self) -> None:
        """Check everything that is there, before the server is ready."""
        found = await asyncio.to_thread(self._scan)
        self._before = found
        await self._judge(list(found))

    async def keep(self, every_s: float) -> None:
        """Look every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look()
            except Exception as fault:
                # One look that went wrong must not be the last.
                log.warning("models_look_failed", extra={"fields": {"kind": type(fault).__name__}})

    async def look(self) -> None:
        """Look once; what looks as it did in the look before is taken as it is."""
        found, before = await asyncio.to_thread(self._scan), self._before
        if not found and self._judged:
            if not self._empty_told:
                self._empty_told = True
                log.warning("models_folder_empty_all_stay", extra={"fields": {}})
            return
        self._empty_told = False
        self._before = found
        gone = [key for key in self._judged if key not in found and key not in before]
        for key in gone:
            del self._judged[key]
            self._remote_at.pop(key, None)
            self.catalog.remove(*key)
        new = [
            key
            for key, (_, state) in found.items()
            if self._judged.get(key) != state and key in before and before[key][1] == state
        ]
        stale = [key for key, at in self._remote_at.items() if key in found and time.monotonic() - at >= REMOTE_SECONDS]
        if await self._judge(list(dict.fromkeys([*new, *stale]))) or gone:
            self._changed(self.catalog)

    async def _judge(self, keys: list[_Key]) -> bool:
        """Check these versions; whether any verdict was taken."""
        if not keys:
            return False
        checker = self._make_checker(self._settings)
        judged = False
        try:
            for key in keys:
                place, state = self._before[key]
                verdict = await checker.check(place)
                if await asyncio.to_thread(folder_state, place.folder) != state:
                    continue
                self._judged[key] = state
                self._note_remote(key, verdict)
                if isinstance(verdict, Refusal):
                    self.catalog.refuse(verdict)
                elif self._serves_the_same(verdict):
                    continue
                else:
                    self.catalog.let_in(verdict)
                judged = True
        finally:
            await checker.close()
        return judged

    def _note_remote(self, key: _Key, verdict: CatalogEntry | Refusal) -> None:
        self._remote_at.pop(key, None)
        remote = verdict.version.reason.startswith("REMOTE_") if isinstance(verdict, Refusal) else verdict.traits.remote
        if remote:
            self._remote_at[key] = time.monotonic()

    def _serves_the_same(self, verdict: CatalogEntry) -> bool:
        """Whether a remote model is what it was: calls and metrics keep the entry they know."""
        served = next((each for each in self.catalog.versions(verdict.model.name) if each.model == verdict.model), None)
        return served is not None and verdict.traits.remote

    def _scan(self) -> _Found:
        return {(place.name, place.version): (place, folder_state(place.folder)) for place in find_bundles(self._folder)}
