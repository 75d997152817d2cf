"""The log takes typed fields from a list, and nothing else."""

from __future__ import annotations

import ast
import json
import logging
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from voxplain_server.observe import log as log_module
from voxplain_server.observe.log import FIELDS, LibraryLog, Log


def test_a_line_is_one_json_object() -> None:
    stream = StringIO()
    Log(stream).write("call_ended", outcome="completed", seconds=1.5, methods=2)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["outcome"], line["seconds"]) == ("call_ended", "info", "completed", 1.5)


@pytest.mark.parametrize(
    "values", [{"request_id": "x"}, {"key": "x"}, {"message": "x"}, {"methods": "occlusion"}, {"reason": b"x"}, {"seconds": 1}]
)
def test_a_field_that_is_not_on_the_list_or_of_another_type_is_refused(values: dict[str, Any]) -> None:
    stream = StringIO()
    with pytest.raises(ValueError, match="field"):
        Log(stream).write("call_ended", **values)
    assert stream.getvalue() == ""


def test_an_event_is_no_sentence() -> None:
    with pytest.raises(ValueError, match="event"):
        Log(StringIO()).write("Patient Jane Doe")


def test_no_field_is_made_for_what_clients_type() -> None:
    assert not set(FIELDS) & {"request_id", "key", "tensor_id", "message", "text", "target", "modality"}


def test_text_of_libraries_is_dropped_and_its_place_is_kept() -> None:
    stream = StringIO()
    logger = logging.Logger("some.library")
    logger.addHandler(LibraryLog(Log(stream)))
    try:
        raise ValueError("jane doe")
    except ValueError:
        logger.exception("could not read %s", "jane doe")
    logger.debug("jane doe")
    assert "jane" not in stream.getvalue()
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["kind"], line["logger"]) == ("library", "error", "ValueError", "some.library")
    assert line["where"].startswith("test_log:")


def our_logger() -> tuple[logging.Logger, StringIO]:
    stream = StringIO()
    logger = logging.Logger("voxplain_server.workers.pool")
    logger.addHandler(LibraryLog(Log(stream)))
    return logger, stream


def test_our_own_modules_log_events_with_fields_of_the_list() -> None:
    logger, stream = our_logger()
    logger.warning("worker_died", extra={"fields": {"pid": 7, "status": -9}})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["pid"], line["status"]) == ("worker_died", "warning", 7, -9)


@pytest.mark.parametrize("fields", [{"text": "jane doe"}, {"pid": "jane doe"}, "jane doe"])
def test_text_of_our_own_modules_is_dropped_as_well(fields: object) -> None:
    logger, stream = our_logger()
    logger.warning("jane doe is %s", "ill", extra={"fields": fields})
    assert "jane" not in stream.getvalue()
    assert json.loads(stream.getvalue())["where"].startswith("test_log:")


def test_every_event_of_our_modules_passes_the_list() -> None:
    package = Path(log_module.__file__).parents[1]
    calls = [
        (path, node)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.") and ast.unparse(node.func) != "log.write"
    ]
    assert len(calls) >= 5
    for path, node in calls:
        assert [each.arg for each in node.keywords] == ["extra"], f"{path.name}:{node.lineno}: events have fields, not text"
        assert isinstance(node.args[0], ast.Constant | ast.Name)
        named = [ast.literal_eval(key) for each in ast.walk(node) if isinstance(each, ast.Dict) for key in each.keys if key]
        assert set(named) <= {"fields", *log_module.FIELDS}, f"{path.name}:{node.lineno}: a field that is not on the list"


def test_long_text_is_cut_and_cannot_break_a_line() -> None:
    stream = StringIO()
    Log(stream).write("library", where="a\n" * 5000)
    assert len(stream.getvalue().splitlines()) == 1
    assert len(stream.getvalue()) < 1000
