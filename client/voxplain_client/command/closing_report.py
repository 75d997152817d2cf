"""What `voxplain explain` says at the end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text
from voxplain.v1 import explain_pb2

from voxplain_client.pictures.overview_text import WITHOUT_MAP, is_partial, outcome_in_words, write_answer


def print_report(console: Console, record: explain_pb2.ExplanationRecord, *, modalities: Sequence[str]) -> None:
    """Print the model's answer, the importance of each modality, how each method ended, and every caution.

    Args:
        modalities: in the model's order.
    """
    name = record.prediction.target_name or "the model's output"
    console.print(Text(f"\n{record.model} {record.version}, explained: {name}", style="bold"))
    console.print(Text(write_answer(record.prediction)), soft_wrap=True)
    console.print(_importance_table(record.results, modalities))
    console.print(_outcome_table(record.results))
    for caution in record.cautions:
        scope = f" ({caution.method_key})" if caution.method_key else ""
        console.print(Text(f"caution {caution.code}{scope}: {caution.description}", style="yellow"), soft_wrap=True)
    for result in record.results:
        if result.outcome != explain_pb2.OUTCOME_COMPLETED:
            text = f"{result.method_key}: {outcome_in_words(result.outcome)}: {result.reason} {result.description}"
            console.print(Text(text.rstrip(), style="red"), soft_wrap=True)
    console.print(Text("Not for diagnostic use.", style="bold"))


def _importance_table(results: Sequence[explain_pb2.MethodResult], modalities: Sequence[str]) -> Table:
    table = Table(
        title="importance of the modalities",
        caption="share of the positive mass; below it: sum of positives / sum / sum of absolutes, on the model's grid",
        show_lines=True,
    )
    table.add_column("method", overflow="fold")
    for modality in modalities:
        table.add_column(modality, justify="right")
    for result in results:
        if result.outcome not in WITHOUT_MAP:
            table.add_row(result.method_key, *_importance_cells(result, modalities))
    return table


def _importance_cells(result: explain_pb2.MethodResult, modalities: Sequence[str]) -> list[str]:
    values = {held.modality: f"{held.value:+.4g}\nits Shapley value" for held in result.modality_values}
    positive = sum(row.sum_positive for row in result.modality_importance)
    for row in result.modality_importance:
        share = f"{100 * row.sum_positive / positive:.1f} %" if positive > 0 else "none"
        values[row.modality] = f"{share}\n{_short(row.sum_positive)} / {_short(row.sum)} / {_short(row.sum_absolute)}"
    return [values.get(modality, "not defined\n(shared map)") for modality in modalities]


def _short(number: float) -> str:
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e7 else f"{number:.3g}"


def _outcome_table(results: Sequence[explain_pb2.MethodResult]) -> Table:
    table = Table(title="how each method ended")
    for heading in ("method", "outcome", "evaluations", "completeness gap", "standard error", "seconds"):
        table.add_column(heading, justify="left" if heading in ("method", "outcome") else "right", overflow="fold")
    for result in results:
        outcome = outcome_in_words(result.outcome) + (" (PARTIAL)" if is_partial(result) else "")
        gap = f"{result.completeness_gap:.3g}" if result.HasField("completeness_gap") else ""
        if result.HasField("completeness_gap_standard_error"):
            gap += f" ± {result.completeness_gap_standard_error:.2g}"
        table.add_row(
            result.method_key,
            Text(outcome, style="red" if is_partial(result) or result.outcome in WITHOUT_MAP else ""),
            f"{result.evaluations_done:,} of {result.evaluations_planned:,}",
            gap,
            f"{result.standard_error:.3g}" if result.HasField("standard_error") else "",
            f"{result.compute_duration.ToNanoseconds() / 1e9:.2f}",
        )
    return table
