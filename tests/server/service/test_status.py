"""Every error of the tree leaves as a status that generic clients understand."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2
from voxplain.errors import ERRORS_BY_CODE, InvalidSpec, VoxplainError
from voxplain_server.service.status import status_of


@pytest.mark.parametrize("kind", list(ERRORS_BY_CODE.values()))
def test_code_reason_field_and_delay_travel(kind: type[VoxplainError]) -> None:
    status = status_of(kind("SOME_REASON", "what to do", field="tensors[1].shape", retry_after_s=2.5))
    assert status.code == kind.code.value[0]
    assert status.message == "what to do"
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert status.details[2].Unpack(retry)
    assert (info.reason, info.domain) == ("SOME_REASON", "voxplain")
    (violation,) = bad.field_violations
    assert (violation.field, violation.reason) == ("tensors[1].shape", "SOME_REASON")
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_what_is_not_known_is_left_out() -> None:
    status = status_of(InvalidSpec("SOME_REASON", "what to do"))
    assert len(status.details) == 1
