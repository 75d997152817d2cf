"""Logs that cannot hold patient data: one JSON object a line, from an allow-list of typed fields.

There is no free text. Nothing a client typed is a field: no request id, no key, no tensor id, no text of an error; methods are
counted, models and versions are names of the catalogue.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import TextIO

FIELDS: dict[str, type] = {
    "explanation_id": str,
    "fault_id": str,
    "model": str,
    "version": str,
    "methods": int,
    "tensors": int,
    "outcome": str,
    "reason": str,
    "code": str,
    "seconds": float,
    "bytes_received": int,
    "bytes_sent": int,
    "kind": str,
    "where": str,
    "workers": int,
    "models": int,
    "logger": str,
    "port": int,
    "pid": int,
    "status": int,
    "serving": bool,
}
"""Every field that a line may have, and its type."""

_MAX_TEXT = 200
_EVENT = re.compile(r"[a-z_]{1,40}")


class Log:
    """Writes lines.

    Args:
        stream: where to; default: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr

    def write(self, event: str, *, level: str = "info", **values: object) -> None:
        """Write one line.

        Args:
            event: what happened, lower_snake_case.
            level: "info", "warning" or "error".
            values: fields of FIELDS.

        Raises:
            ValueError: a field that is not on the list, or a value of another type: a fault of the caller.
        """
        if not _EVENT.fullmatch(event):
            raise ValueError("an event is named in lower_snake_case")
        line: dict[str, object] = {"time": round(time.time(), 3), "level": level, "event": event}
        for name, value in values.items():
            wanted = FIELDS.get(name)
            if wanted is None or type(value) is not wanted:
                raise ValueError(f"{name} is not a field of the log, or has another type")
            line[name] = value[:_MAX_TEXT] if isinstance(value, str) else value
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


class LibraryLog(logging.Handler):
    """Turns what is logged the usual way into lines without its text, which may quote what somebody was given.

    Our own modules (voxplain_server.*) log an event by its name, with fields of the list in `extra={"fields": {...}}`. Of
    everybody else, and of ours where they do otherwise, a line keeps the logger, the place and the type of the exception.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(level=logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        fields = getattr(record, "fields", None)
        if record.name.startswith("voxplain_server.") and isinstance(fields, dict):
            try:
                self._log.write(str(record.msg), level=level, **fields)
            except (ValueError, TypeError):
                # A field that is not on the list: told below, without what it holds.
                pass
            else:
                return
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        where = f"{record.module}:{record.lineno}"
        self._log.write("library", level=level, logger=record.name, where=where, kind=kind)


def route_library_logs(log: Log) -> None:
    """Let every logger of the process write through `log`, and none elsewhere."""
    root = logging.getLogger()
    root.handlers[:] = [LibraryLog(log)]
    root.setLevel(logging.WARNING)
