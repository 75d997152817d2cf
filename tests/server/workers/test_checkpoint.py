"""Checkpoints come from strangers."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from voxplain.errors import CheckpointRefused
from voxplain.v1 import explain_pb2
from voxplain_server.workers.checkpoint import (
    Checkpoint,
    MethodScores,
    bind_inputs,
    bind_request,
    pack_checkpoint,
    unpack_checkpoint,
)

KEY, BINDING, LIMIT = b"k" * 32, b"b" * 32, 1 << 16


def some() -> Checkpoint:
    rows = np.array([[0, 4, 1], [8, 10, 0]], dtype=np.uint64)
    return Checkpoint(inputs=b"i" * 32, methods={"occlusion": MethodScores(rows, np.arange(6.0))})


def packed() -> bytes:
    return pack_checkpoint(some(), binding=BINDING, key=KEY, max_bytes=LIMIT)


def test_a_checkpoint_comes_back_as_it_went() -> None:
    back = unpack_checkpoint(packed(), binding=BINDING, key=KEY, max_bytes=LIMIT)
    assert back.inputs == some().inputs
    np.testing.assert_array_equal(back.methods["occlusion"].blocks, some().methods["occlusion"].blocks)
    np.testing.assert_array_equal(back.methods["occlusion"].scores, some().methods["occlusion"].scores)


@pytest.mark.parametrize("place", [0, 5, 40, -1])
def test_a_changed_byte_is_refused(place: int) -> None:
    changed = bytearray(packed())
    changed[place] ^= 1
    with pytest.raises(CheckpointRefused) as refused:
        unpack_checkpoint(bytes(changed), binding=BINDING, key=KEY, max_bytes=LIMIT)
    assert (refused.value.reason, refused.value.field) == ("CHECKPOINT_INVALID", "checkpoint")
    assert "VOXPLAIN_CHECKPOINT_KEY" in refused.value.message


@pytest.mark.parametrize(("binding", "key"), [(b"x" * 32, KEY), (BINDING, b"x" * 32)])
def test_another_request_or_another_server_is_refused(binding: bytes, key: bytes) -> None:
    with pytest.raises(CheckpointRefused):
        unpack_checkpoint(packed(), binding=binding, key=key, max_bytes=LIMIT)


@pytest.mark.parametrize("length", [0, 3, 35, 60])
def test_a_short_checkpoint_is_refused(length: int) -> None:
    with pytest.raises(CheckpointRefused):
        unpack_checkpoint(packed()[:length], binding=BINDING, key=KEY, max_bytes=LIMIT)


def test_a_checkpoint_that_unpacks_to_too_much_is_refused() -> None:
    scores = MethodScores(np.zeros((0, 3), dtype=np.uint64), np.zeros(LIMIT * 2))
    bomb = pack_checkpoint(Checkpoint(b"i" * 32, {"occlusion": scores}), binding=BINDING, key=KEY, max_bytes=LIMIT * 3)
    assert len(bomb) < LIMIT < len(zlib.decompress(bomb[36:])) // 8
    with pytest.raises(CheckpointRefused):
        unpack_checkpoint(bomb, binding=BINDING, key=KEY, max_bytes=LIMIT)


@pytest.mark.parametrize(("scores", "handed_out"), [(LIMIT - 8, True), (LIMIT, False)])
def test_what_would_not_be_taken_back_is_not_handed_out(scores: int, handed_out: bool) -> None:
    """Zeros pack well: it is the unpacked length that is bounded here."""
    checkpoint = Checkpoint(b"i" * 32, {"o": MethodScores(np.zeros((0, 3), dtype=np.uint64), np.zeros(scores))})
    packed = pack_checkpoint(checkpoint, binding=BINDING, key=KEY, max_bytes=LIMIT)
    assert bool(packed) == handed_out
    if handed_out:
        back = unpack_checkpoint(packed, binding=BINDING, key=KEY, max_bytes=LIMIT)
        assert back.methods["o"].scores.size == scores


def test_what_packs_too_long_is_not_handed_out() -> None:
    noise = np.random.default_rng(0).normal(size=LIMIT // 4)
    checkpoint = Checkpoint(b"i" * 32, {"o": MethodScores(np.zeros((0, 3), dtype=np.uint64), noise)})
    assert pack_checkpoint(checkpoint, binding=BINDING, key=KEY, max_bytes=LIMIT) == b""


def test_the_binding_covers_what_decides_the_scores_and_not_what_names_the_call() -> None:
    spec = explain_pb2.ExplainSpec(model="m", seed=3)
    execution = explain_pb2.Execution(batch_size=4)
    same = explain_pb2.ExplainSpec(model="m", seed=3, request_id="again", checkpoint=b"x")
    assert bind_request("d", spec, execution) == bind_request("d", same, execution)
    others = [
        bind_request("other", spec, execution),
        bind_request("d", explain_pb2.ExplainSpec(model="m", seed=4), execution),
        bind_request("d", spec, explain_pb2.Execution(batch_size=5)),
    ]
    assert bind_request("d", spec, execution) not in others


def test_the_inputs_cover_every_tensor_and_every_package() -> None:
    whole = bind_inputs({"t1": "aa", "t2": "bb"}, {"torch": "2"})
    assert whole == bind_inputs({"t2": "bb", "t1": "aa"}, {"torch": "2"})
    assert whole != bind_inputs({"t1": "bb", "t2": "aa"}, {"torch": "2"})
    assert whole != bind_inputs({"t1": "aa", "t2": "bb"}, {"torch": "3"})
