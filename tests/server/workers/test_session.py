"""The compute side of a call, in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from voxplain.errors import Cancelled, UnsupportedByModel
from voxplain.v1 import explain_pb2
from voxplain.worker.v1 import worker_pb2
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.loading import load_model
from voxplain_server.workers.catalog import CatalogEntry
from voxplain_server.workers.channel import Channel, open_pair
from voxplain_server.workers.held_model import HeldModel, HeldModels
from voxplain_server.workers.job import Job
from voxplain_server.workers.open_command import open_command
from voxplain_server.workers.score_board import ScoreBoard
from voxplain_server.workers.session import Session

from tests.server.workers.calling import job, method
from tests.server.workers.conftest import Ward

LONG = method("occlusion", window=[1], stride=[1])
BATCH = 4


class CountedEvaluator:
    """An evaluator that counts the cases that reach it, batch by batch."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.name = inner.name
        self.answer = inner.answer
        self.batches = 0

    def scores(
        self, case: Any, score: Any, perturbations: Sequence[Perturbation], *, batch_size: int, cancelled: Callable[[], bool]
    ) -> npt.NDArray[np.float64]:
        def between_batches() -> bool:
            stop = cancelled()
            self.batches += not stop
            return stop

        scores: npt.NDArray[np.float64] = self._inner.scores(
            case, score, perturbations, batch_size=batch_size, cancelled=between_batches
        )
        return scores


@contextmanager
def session_of(asked: Job, entry: CatalogEntry, held: HeldModel, cancelled: Callable[[], bool]) -> Iterator[Session]:
    """A session, prepared, with a board."""
    ours, theirs = open_pair()
    execution = explain_pb2.Execution(batch_size=BATCH, block_size=1_000_000)
    command = open_command(asked, entry, execution, lead=True, max_loaded_models=1)
    with ours, theirs:
        session = Session(
            1,
            command,
            held,
            traits=entry.traits,
            memory=asked.memory,
            channel=Channel(ours, worker_pb2.Command),
            cancelled=cancelled,
        )
        prepared = session.prepare()
        board = ScoreBoard.create([outline.evaluations for outline in prepared.outlines])
        session.attach(os.dup(board.descriptor), board.evaluations)
        board.close()
        yield session
        session.close()


def held_model(entry: CatalogEntry) -> tuple[HeldModel, CountedEvaluator]:
    held = HeldModel(load_model(BundlePlace(entry.model.name, entry.model.version, entry.model.folder)), threads=1)
    counted = CountedEvaluator(held.evaluator)
    held.evaluator = counted  # type: ignore[assignment]
    return held, counted


@pytest.mark.parametrize("batches", [0, 1, 5])
async def test_a_cancel_stops_the_evaluations_within_one_batch(ward: Ward, batches: int) -> None:
    entry = ward.catalog.find("tiny-glioma")
    held, counted = held_model(entry)
    begun = Event()
    async with job(ward.bundles["tiny-glioma"], ward.catalog, [LONG]) as asked:
        with session_of(asked, entry, held, lambda: begun.is_set() and counted.batches >= batches) as session:
            begun.set()
            with pytest.raises(Cancelled):
                session.evaluate(0, 0)
    assert counted.batches == batches


async def test_a_cancel_stops_a_gradient_method_between_passes(ward: Ward) -> None:
    entry = ward.catalog.find("tiny-glioma")
    held, _ = held_model(entry)
    asks = 0

    def cancelled() -> bool:
        nonlocal asks
        asks += 1
        return begun and asks > 3

    begun = False
    asked_for = [method("integrated-gradients", steps=50)]
    async with job(ward.bundles["tiny-glioma"], ward.catalog, asked_for) as asked:
        with session_of(asked, entry, held, cancelled) as session:
            begun, asks = True, 0
            with pytest.raises(Cancelled):
                session.attribute(0)
    assert asks == 4


async def test_a_model_that_changed_on_disk_is_refused(ward: Ward) -> None:
    entry = ward.catalog.find("tiny-glioma")
    metadata = entry.model.folder / "metadata.json"
    before = metadata.read_text()
    models = HeldModels(threads=1)
    try:
        metadata.write_text(before + " ")
        with pytest.raises(UnsupportedByModel) as refused:
            models.hold(entry.model, most=1)
    finally:
        metadata.write_text(before)
    assert refused.value.reason == "MODEL_CHANGED"
    assert models.hold(entry.model, most=1) is models.hold(entry.model, most=1)


async def test_the_model_used_longest_ago_is_let_go(ward: Ward) -> None:
    models = HeldModels(threads=1)
    first, second = (ward.catalog.find(name).model for name in ("tiny-glioma", "tiny-fixed"))
    held = models.hold(first, most=2)
    models.hold(second, most=2)
    assert models.hold(first, most=2) is held
    models.hold(ward.catalog.find("tiny-knee").model, most=2)
    assert models.hold(first, most=2) is held
