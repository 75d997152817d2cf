"""Uploads and messages that break every rule: nothing unforeseen happens, and what is accepted is what was sent."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from voxplain import wire
from voxplain.errors import VoxplainError

from tests.server.service.front import case_messages, good_spec, running_front, spec_message
from tests.stress.assembling import assemble
from tests.stress.malformed import send_malformed

MUTATED = 3000
MALFORMED = 300


def test_spoiled_uploads_are_read_as_a_plain_reading_of_them_says() -> None:
    tally = asyncio.run(assemble(MUTATED, seed=20))
    assert tally.wrong == []
    assert tally.accepted > MUTATED // 10
    assert tally.refused > MUTATED // 4


async def test_malformed_rpcs_never_end_unknown_or_internal() -> None:
    async with running_front() as front:
        good = [spec_message(good_spec()), *case_messages()]
        outcome = await asyncio.to_thread(send_malformed, front.address, MALFORMED, good, seed=4)
        assert outcome.forbidden == []
        assert sum(outcome.codes.values()) == MALFORMED
        assert len(outcome.codes) >= 4
        assert front.ledger.acquired["handlers"] > MALFORMED // 3
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


class Assembling(RuleBasedStateMachine):
    """An assembler beside a model of it: what a good client sent so far."""

    def __init__(self) -> None:
        super().__init__()
        self.case = {"a": bytes(range(60)), "b": b"x", "c": bytes(range(200, 256))}
        self.memory = {key: bytearray(len(data)) for key, data in self.case.items()}
        self.sent = dict.fromkeys(self.case, 0)
        self.assembler = wire.Assembler({key: len(data) for key, data in self.case.items()}, self.write)

    def write(self, tensor_id: str, offset: int, data: memoryview) -> None:
        assert 0 <= offset <= offset + len(data) <= len(self.case[tensor_id])
        self.memory[tensor_id][offset : offset + len(data)] = data

    @precondition(lambda self: not self.assembler.complete)
    @rule(data=st.data(), size=st.integers(1, 70), checked=st.booleans())
    def send_the_next(self, data: st.DataObject, size: int, checked: bool) -> None:
        key = data.draw(st.sampled_from([key for key, sent in self.sent.items() if sent < len(self.case[key])]))
        part = self.case[key][self.sent[key] : self.sent[key] + size]
        crc = wire.checksum(part) if checked else None
        self.assembler.add(wire.ChunkView(tensor_id=key, offset_bytes=self.sent[key], data=memoryview(part), crc32c=crc))
        self.sent[key] += len(part)

    @rule(key=st.sampled_from(["a", "b", "c", "d", ""]), offset=st.integers(0, 80), size=st.integers(0, 80))
    def send_nonsense(self, key: str, offset: int, size: int) -> None:
        chunk = wire.ChunkView(tensor_id=key, offset_bytes=offset, data=memoryview(bytes(size)), crc32c=1)
        try:
            self.assembler.add(chunk)
        except VoxplainError:
            return
        raise AssertionError("a chunk with a wrong checksum was taken")

    @invariant()
    def it_holds_what_was_sent_and_no_more(self) -> None:
        assert self.assembler.bytes_received == sum(self.sent.values())
        assert self.assembler.complete == (self.sent == {key: len(data) for key, data in self.case.items()})
        for key, sent in self.sent.items():
            assert self.memory[key][:sent] == self.case[key][:sent]
            assert not any(self.memory[key][sent:])


TestAssembling = Assembling.TestCase
TestAssembling.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
