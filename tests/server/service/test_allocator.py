"""The front's allocator settings."""

from __future__ import annotations

import ctypes
import platform

import pytest
from voxplain_server.service.allocator import keep_buffers


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_glibc_takes_the_settings() -> None:
    assert keep_buffers()


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_buffers()
