"""What stands at the end on terminals of different widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from voxplain.v1 import explain_pb2
from voxplain_client.command.closing_report import print_report
from voxplain_client.method_names import METHOD_NAMES

MODALITIES = ("t1", "t1c", "t2", "flair")


def record_of_all() -> explain_pb2.ExplanationRecord:
    """Every method ended, with large sums."""
    record = explain_pb2.ExplanationRecord(model="m", version="1")
    for name in METHOD_NAMES:
        result = record.results.add(
            method_key=name, outcome=explain_pb2.OUTCOME_COMPLETED, evaluations_planned=5001, evaluations_done=5001
        )
        result.completeness_gap, result.standard_error = -0.0123, 0.00456
        for number, modality in enumerate(MODALITIES):
            if name == "modality-shapley":
                result.modality_values.add(modality=modality, value=-1.25)
            elif name != "grad-cam":
                result.modality_importance.add(
                    modality=modality, sum_positive=123456.0 * (number + 1), sum=-54321.0, sum_absolute=654321.0
                )
    return record


def printed(record: explain_pb2.ExplanationRecord, *, width: int) -> list[str]:
    """The lines on a terminal."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_report(console, record, modalities=MODALITIES)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_name_and_no_number_is_cut_or_broken(width: int) -> None:
    lines = printed(record_of_all(), width=width)
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    assert "\u2026" not in text
    for name in METHOD_NAMES:
        assert sum(f" {name} " in line for line in lines) == 2
    for words in ("10.0 %", "40.0 %", "-1.25", "not defined", " 5,001 ", "-0.0123", "0.00456"):
        assert words in text


def test_a_narrow_terminal_gets_one_line_for_each_method_and_is_told_where_the_sums_are() -> None:
    narrow, wide = (" ".join(printed(record_of_all(), width=width)) for width in (80, 200))
    assert "modality-importance.json" in narrow
    assert "123,456" not in narrow
    assert "123,456 / -54,321 / 654,321" in wide


def test_a_column_in_which_no_method_has_a_number_is_left_out() -> None:
    record = explain_pb2.ExplanationRecord(model="m", version="1")
    record.results.add(method_key="gradient", outcome=explain_pb2.OUTCOME_COMPLETED)
    text = " ".join(printed(record, width=120))
    assert "seconds" in text
    assert "standard error" not in text
    assert "completeness gap" not in text
