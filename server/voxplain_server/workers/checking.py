"""Fills the catalogue: every bundle is looked at in a process that may die of it.

Light: runs in the front, so neither torch nor onnxruntime may be imported from here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from voxplain.v1 import catalog_pb2, explain_pb2
from voxplain.worker.v1 import worker_pb2

from voxplain_server.models.bundle import find_bundles
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.description import model_from_json
from voxplain_server.workers.catalog import Catalog, CatalogEntry, Refusal
from voxplain_server.workers.execution import resolve_execution
from voxplain_server.workers.memory import close_all
from voxplain_server.workers.pool_settings import PoolSettings
from voxplain_server.workers.worker import Worker

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.02
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def check_models(folder: Path, *, settings: PoolSettings) -> Catalog:
    """Check every bundle below a models folder, a model or a version.

    A bundle that crashes its process, exceeds its memory or time, or is not what it must be is refused; the others load.
    """
    checker = BundleChecker(settings)
    try:
        found = [await checker.check(place) for place in find_bundles(folder)]
    finally:
        await checker.close()
    return Catalog(
        [each for each in found if isinstance(each, CatalogEntry)], [each for each in found if isinstance(each, Refusal)]
    )


class BundleChecker:
    """Checks bundles one after another, in one process as long as it lives.

    Args:
        settings: memory, time and threads of the process.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._worker: Worker | None = None
        self._answer: asyncio.Future[worker_pb2.Event] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the process that checks; None before the first bundle."""
        return None if self._worker is None else self._worker.pid

    async def check(self, place: BundlePlace) -> CatalogEntry | Refusal:
        """Look at one bundle."""
        try:
            async with asyncio.timeout(self._settings.check_seconds):
                event = await self._watched(place)
        except MemoryError:
            told = (
                "Checking this model takes more memory than the server allows. Make it smaller, or raise --check-memory-bytes."
            )
            return await self._give_up(place, "CHECK_MEMORY", told)
        except TimeoutError:
            told = "Checking this model took longer than the server allows. Make it smaller, or raise --check-seconds."
            return await self._give_up(place, "CHECK_TIMEOUT", told)
        except ConnectionError:
            told = "Checking this model ended its process: it asks for too much memory, or its file is hostile. Export it anew."
            return await self._give_up(place, "CHECK_CRASHED", told)
        if self.pid is not None and resident_bytes(self.pid) > self._settings.check_memory_bytes // 2:
            # What this bundle left behind must not count against the next.
            await self.close()
        if event.WhichOneof("event") != "checked":
            return _refusal(place, event.failed.reason, event.failed.message)
        return self._entry(event.checked)

    async def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            await self._worker.end()
            self._worker = None

    def hear(self, worker: Worker, event: worker_pb2.Event, descriptors: list[int]) -> None:
        """As Holder.hear."""
        close_all(descriptors)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(event)

    def lose(self, worker: Worker) -> None:
        """As Holder.lose."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the checking process is gone"))

    async def _watched(self, place: BundlePlace) -> worker_pb2.Event:
        """Ask, and look how much memory the process takes meanwhile: its address space says little, and a container's limit
        would end the server with it."""
        asking = asyncio.create_task(self._ask(place))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=_WATCH_SECONDS)
                if self.pid is not None and resident_bytes(self.pid) > self._settings.check_memory_bytes:
                    raise MemoryError
            return asking.result()
        finally:
            asking.cancel()

    async def _ask(self, place: BundlePlace) -> worker_pb2.Event:
        if self._worker is None or self._worker.gone.is_set():
            await self.close()
            self._worker = Worker(self._settings.check_start)
            await self._worker.ready
        self._answer = asyncio.get_running_loop().create_future()
        self._worker.lease(1, self)
        command = worker_pb2.Check(
            name=place.name,
            version=place.version,
            folder=str(place.folder),
            engine=self._settings.engine,
            cache="" if self._settings.cache is None else str(self._settings.cache),
        )
        self._worker.send(worker_pb2.Command(check=command))
        return await self._answer

    async def _give_up(self, place: BundlePlace, reason: str, told: str) -> Refusal:
        await self.close()
        return _refusal(place, reason, told)

    def _entry(self, checked: worker_pb2.Checked) -> CatalogEntry:
        model, traits = model_from_json(checked.model_json)
        description = checked.description
        execution = resolve_execution(
            model, explain_pb2.ExplainSpec(), engine=checked.engine, threads=self._settings.threads_per_worker
        )
        description.execution.CopyFrom(execution)
        return CatalogEntry(model=model, traits=traits, description=description, engine=checked.engine)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _refusal(place: BundlePlace, reason: str, told: str) -> Refusal:
    log.warning("bundle_refused", extra={"fields": {"model": place.name, "version": place.version, "reason": reason}})
    return Refusal(place.name, catalog_pb2.RefusedVersion(version=place.version, reason=reason, description=told))
