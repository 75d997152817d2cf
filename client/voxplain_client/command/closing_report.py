"""What `voxplain explain` says at the end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text
from voxplain.v1 import explain_pb2

from voxplain_client.method_names import METHOD_NAMES
from voxplain_client.pictures.overview_text import WITHOUT_MAP, is_partial, outcome_in_words, write_answer

_NOT_DEFINED = "not defined"
_ENDLESS = 10_000
_LONGEST_NAME = max(len(name) for name in METHOD_NAMES)


def print_report(console: Console, record: explain_pb2.ExplanationRecord, *, modalities: Sequence[str]) -> None:
    """Print the model's answer, the importance of each modality, how each method ended, and every caution.

    Args:
        modalities: in the model's order.
    """
    # Pipes and files get whole lines; a terminal must not break words.
    whole_lines = not console.is_terminal
    name = record.prediction.target_name or "the model's output"
    console.print(Text(f"\n{record.model} {record.version}, explained: {name}", style="bold"))
    console.print(Text(write_answer(record.prediction)), soft_wrap=whole_lines)
    table = _importance_table(record.results, modalities, sums=True)
    if not _fits(console, table):
        table = _importance_table(record.results, modalities, sums=False)
    console.print(table)
    console.print(_outcome_table(record.results))
    for caution in record.cautions:
        scope = f" ({caution.method_key})" if caution.method_key else ""
        console.print(Text(f"caution {caution.code}{scope}: {caution.description}", style="yellow"), soft_wrap=whole_lines)
    for result in record.results:
        if result.outcome != explain_pb2.OUTCOME_COMPLETED:
            text = f"{result.method_key}: {outcome_in_words(result.outcome)}: {result.reason} {result.description}"
            console.print(Text(text.rstrip(), style="red"), soft_wrap=whole_lines)
    console.print(Text("Not for diagnostic use.", style="bold"))


def _fits(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(width=_ENDLESS)).maximum <= console.width


def _importance_table(results: Sequence[explain_pb2.MethodResult], modalities: Sequence[str], *, sums: bool) -> Table:
    shown = [result for result in results if result.outcome not in WITHOUT_MAP]
    caption = ["share of the positive mass"]
    if sums:
        caption.append("below it: sum of positives / sum / sum of absolutes, on the model's grid")
    else:
        caption.append("the sums are in modality-importance.json")
    if any(result.modality_values for result in shown):
        caption.append("with a sign: the modality's Shapley value")
    if any(_NOT_DEFINED in _importance_cells(result, modalities, sums=sums) for result in shown):
        caption.append(f"{_NOT_DEFINED}: the modalities share one map")
    table = Table(title="importance of the modalities", caption="; ".join(caption), show_lines=sums)
    _add_method_column(table, shown)
    for modality in modalities:
        table.add_column(modality, justify="right", overflow="fold")
    for result in shown:
        table.add_row(result.method_key, *_importance_cells(result, modalities, sums=sums))
    return table


def _add_method_column(table: Table, results: Sequence[explain_pb2.MethodResult]) -> None:
    # The names of methods stay whole; longer keys of the user may be folded.
    longest = max((len(result.method_key) for result in results), default=0)
    table.add_column("method", overflow="fold", no_wrap=longest <= _LONGEST_NAME)


def _importance_cells(result: explain_pb2.MethodResult, modalities: Sequence[str], *, sums: bool) -> list[str]:
    values = {held.modality: f"{held.value:+.4g}" for held in result.modality_values}
    positive = sum(row.sum_positive for row in result.modality_importance)
    for row in result.modality_importance:
        values[row.modality] = f"{100 * row.sum_positive / positive:.1f} %" if positive > 0 else "none"
        if sums:
            values[row.modality] += f"\n{_short(row.sum_positive)} / {_short(row.sum)} / {_short(row.sum_absolute)}"
    return [values.get(modality, _NOT_DEFINED) for modality in modalities]


def _short(number: float) -> str:
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e7 else f"{number:.3g}"


def _outcome_table(results: Sequence[explain_pb2.MethodResult]) -> Table:
    table = Table(title="how each method ended")
    _add_method_column(table, results)
    table.add_column("outcome", overflow="fold")
    has_gap = any(result.HasField("completeness_gap") for result in results)
    has_error = any(result.HasField("standard_error") for result in results)
    # A column that says nothing would squeeze the others on a narrow terminal.
    gap_column, error_column = ["completeness gap"] if has_gap else [], ["standard error"] if has_error else []
    for heading in ("evaluations", *gap_column, *error_column, "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    for result in results:
        outcome = outcome_in_words(result.outcome) + (" (PARTIAL)" if is_partial(result) else "")
        table.add_row(
            result.method_key,
            Text(outcome, style="red" if is_partial(result) or result.outcome in WITHOUT_MAP else ""),
            _evaluations(result),
            *([_gap(result)] if has_gap else []),
            *([f"{result.standard_error:.3g}" if result.HasField("standard_error") else ""] if has_error else []),
            f"{result.compute_duration.ToNanoseconds() / 1e9:.2f}",
        )
    return table


def _evaluations(result: explain_pb2.MethodResult) -> str:
    done, planned = result.evaluations_done, result.evaluations_planned
    return f"{done:,}" if done == planned else f"{done:,} of {planned:,}"


def _gap(result: explain_pb2.MethodResult) -> str:
    if not result.HasField("completeness_gap"):
        return ""
    text = f"{result.completeness_gap:.3g}"
    if result.HasField("completeness_gap_standard_error"):
        text += f" ± {result.completeness_gap_standard_error:.2g}"
    return text
