"""What `voxplain explain` does, step by step."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from voxplain.errors import Cancelled, ServerUnavailable, VoxplainError
from voxplain.v1 import catalog_pb2, explain_pb2

from voxplain_client.client import Client
from voxplain_client.command.closing_report import print_report
from voxplain_client.command.connection_options import open_client
from voxplain_client.command.display import open_display
from voxplain_client.command.explain import read_slice
from voxplain_client.command.field_name import name_field
from voxplain_client.command.method_choice import choose_methods
from voxplain_client.command.output_folder import OVERVIEW, OutputFolder
from voxplain_client.command.replay import apply_record, check_inputs, check_model, compare_maps, name_differences, read_record
from voxplain_client.command.target_argument import read_target
from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.command.volume_arguments import read_background, read_case_file, read_labels, read_volumes, volumes_of
from voxplain_client.connection import server_address
from voxplain_client.events import Accepted, MapReceived, MethodResult, Prediction, Record, Resuming
from voxplain_client.imaging.nifti import Nifti
from voxplain_client.method_names import method_key, method_name
from voxplain_client.pictures.overview import draw_overview
from voxplain_client.pictures.overview_row import OverviewRow
from voxplain_client.pictures.overview_text import (
    WITHOUT_MAP,
    mark_interrupted,
    write_captions,
    write_header,
    write_notes,
    write_warning,
)
from voxplain_client.pictures.slice_view import view_slices
from voxplain_client.request import ExplainOptions, Request, build_request, seconds

INTERRUPTED = 130
SERVER_LOST = 3
_STOPPING = "SHUTTING_DOWN"


class ExplainRun:
    """One run of the command.

    Args:
        options: checked command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._err = Console(stderr=True)
        # A pipe has no width of its own, and the tables must not be cut to 80 columns.
        out = Console()
        self._out = out if out.is_terminal else Console(width=160)
        self._replayed = read_record(options.replay) if options.replay is not None else None
        self._slice = read_slice(options.slice)
        self._rows: list[OverviewRow] = []
        self._names: dict[str, str] = {}
        self._known = explain_pb2.ExplanationRecord()
        self._stopping = False
        self._lost = False

    def run(self) -> int:
        """Explain one case; the exit code."""
        options = self._options
        with open_client(options) as client:
            name = self._replayed.model if self._replayed is not None else options.model
            version = self._replayed.version if self._replayed is not None else options.version
            model = client.describe(name, version=version or "")
            files = read_volumes(options.volume, model, option="--volume")
            outline = read_case_file(options.outline, model.modalities[0], option="--outline") if options.outline else None
            request = self._build(model, files)
            self._check_slice(files)
            folder = OutputFolder(options.out, files, overwrite=options.overwrite)
            folder.check()
            self._names = {method_key(method): method_name(method) for method in request.spec.methods}
            record = self._follow(client, request, folder)
        if record is None:
            if self._rows:
                self._draw(folder, files, self._known, outline, interrupted=True)
                missing = ", ".join(key for key in self._names if key not in {row.key for row in self._rows}) or "none"
                self._out.print(Text(f"\nINTERRUPTED, without a record; had not ended: {missing}", style="red"), soft_wrap=True)
                print_report(self._out, self._known, modalities=list(files))
            return SERVER_LOST if self._lost else INTERRUPTED
        folder.finish(record)
        self._draw(folder, files, record, outline)
        print_report(self._out, record, modalities=list(files))
        self._out.print(Text(f"written to {options.out}"), soft_wrap=True)
        same = self._replayed is None or self._compare(self._replayed, record)
        failed = any(result.outcome == explain_pb2.OUTCOME_FAILED for result in record.results)
        return 1 if failed or not same else 0

    def _build(self, model: catalog_pb2.Model, files: dict[str, Nifti]) -> Request:
        given = self._options
        options: ExplainOptions = {
            "model": model.name,
            "version": given.version or "",
            "volumes": volumes_of(files),
            "methods": [],
            "labels": read_labels(given.labels, model),
            "baselines": volumes_of(read_volumes(given.baseline, model, option="--baseline")) if given.baseline else None,
            "background": read_background(given.background, model),
            "mask": read_case_file(given.mask, model.modalities[0], option="--mask").volume if given.mask else None,
            "snapshot_interval": given.snapshots,
            "grid": given.grid,
        }
        if self._replayed is not None:
            apply_record(self._replayed, options)
            request = build_request(options)
            check_inputs(self._replayed, request)
            return request
        choice = choose_methods(given.method, given.set, model, with_background=bool(given.background))
        for method, reason in choice.left_out:
            self._err.print(Text(f"left out {method}: {reason}", style="yellow"), soft_wrap=True)
        options["methods"] = choice.methods
        options["target"] = read_target(given.target, model.classes)
        options["scale"] = given.scale
        options["seed"] = given.seed
        options["budget"] = self._budget()
        return build_request(options)

    def _check_slice(self, files: dict[str, Nifti]) -> None:
        # A map on the model's grid has slices of its own.
        if self._slice is None or self._options.grid == "model":
            return
        view = view_slices(next(iter(files.values())).volume.geometry, convention=self._options.convention)
        if view.slice_axis is None:
            return
        if isinstance(self._slice, float):
            low, high = view.reach_mm()
            if not low <= self._slice <= high:
                raise UsageFault("--slice", f"the slices lie between {low:.0f}mm and {high:.0f}mm")
        elif not 0 <= self._slice < view.geometry.shape[view.slice_axis]:
            last = view.geometry.shape[view.slice_axis] - 1
            raise UsageFault("--slice", f"the slices are 0 to {last}; a position ends in mm")

    def _budget(self) -> explain_pb2.Budget | None:
        given = self._options
        budget = explain_pb2.Budget(max_evaluations=given.max_evaluations, target_standard_error=given.target_error)
        if given.deadline is not None:
            budget.soft_deadline.CopyFrom(seconds(given.deadline, field="--deadline"))
        return budget if budget.ListFields() else None

    def _follow(self, client: Client, request: Request, folder: OutputFolder) -> explain_pb2.ExplanationRecord | None:
        """The record; None when the user has interrupted."""
        display = open_display(self._err, list(self._names))
        try:
            with client.send(request, keep_maps=False) as explanation:
                for event in explanation:
                    if isinstance(event, Accepted):
                        if self._replayed is not None:
                            check_model(self._replayed, event)
                        self._know(event)
                        # Only now: a refused request must not remove earlier results.
                        folder.begin(self._names)
                    elif isinstance(event, MapReceived):
                        folder.take_map(event)
                    elif isinstance(event, Prediction):
                        self._known.prediction.CopyFrom(event)
                    elif isinstance(event, MethodResult):
                        self._end_method(event, folder)
                    elif isinstance(event, Record):
                        return event
                    # Until it answers again: what comes after SHUTTING_DOWN are refused connections.
                    stopping = isinstance(event, Resuming) and event.fault.reason == _STOPPING
                    self._stopping = stopping or (self._stopping and isinstance(event, Resuming))
                    # After the files: what is shown as done is done.
                    display.show(event)
        except VoxplainError as error:
            if isinstance(error, Cancelled):
                self._tell_interrupted()
                return None
            if isinstance(error, ServerUnavailable) and self._known.explanation_id:
                self._tell_lost(error)
                return None
            error.field = name_field(error.field, request)
            raise
        except KeyboardInterrupt:
            self._tell_interrupted()
        finally:
            display.close()
        return None

    def _know(self, accepted: Accepted) -> None:
        """What an overview can say if the record never comes."""
        known = self._known
        known.explanation_id, known.model, known.version = accepted.explanation_id, accepted.model, accepted.version
        known.seed = accepted.seed
        known.cautions.extend(accepted.cautions)

    def _tell_interrupted(self) -> None:
        kept = ", ".join(row.key for row in self._rows) or "none"
        self._err.print(Text(f"interrupted; the server stops computing. Methods whose maps are kept: {kept}"), soft_wrap=True)

    def _tell_lost(self, error: VoxplainError) -> None:
        self._lost = True
        kept = ", ".join(row.key for row in self._rows if row.maps) or "none"
        drained = any(result.outcome == explain_pb2.OUTCOME_DRAINED for result in self._known.results)
        if self._stopping or drained or error.reason == _STOPPING:
            what = "the server was shutting down and did not come back"
        elif error.reason == "CONNECTION_LOST":
            what = "the connection to the server was lost and could not be made again"
        else:
            what = error.message
        where = server_address(self._options.server)
        text = f"INTERRUPTED: {what} ({error.reason}, {where}). Methods whose maps are kept: {kept}"
        self._err.print(Text(text), soft_wrap=True)

    def _end_method(self, result: explain_pb2.MethodResult, folder: OutputFolder) -> None:
        maps = folder.end_method(result)
        row = OverviewRow(
            key=result.method_key,
            is_signed=result.is_signed,
            notes=write_notes(result, method=self._names.get(result.method_key, result.method_key)),
            warning=write_warning(result),
            maps=maps,
            captions=write_captions(result),
            numbers={held.modality: held.value for held in result.modality_values},
            absence=f"{result.reason}: {result.description}" if result.outcome in WITHOUT_MAP else "",
        )
        # A method that was drained ends twice; the later end counts.
        ended = [*(held for held in self._known.results if held.method_key != row.key), result]
        del self._known.results[:]
        self._known.results.extend(ended)
        self._rows = [*(kept for kept in self._rows if kept.key != row.key), row]

    def _draw(
        self,
        folder: OutputFolder,
        files: dict[str, Nifti],
        record: explain_pb2.ExplanationRecord,
        outline: Nifti | None,
        *,
        interrupted: bool = False,
    ) -> None:
        convention = self._options.convention
        text = write_header(
            record,
            convention=convention,
            outlined=outline is not None,
            slice_given=self._slice is not None,
            unreached=any(row.unreached for row in self._rows),
        )
        if interrupted:
            text = mark_interrupted(text, finished=[row.key for row in self._rows], asked=list(self._names))
        draw_overview(
            folder.path / OVERVIEW,
            rows=self._rows,
            images=volumes_of(files),
            text=text,
            convention=convention,
            outline=outline.volume if outline is not None else None,
            slice_at=self._slice,
        )

    def _compare(self, before: explain_pb2.ExplanationRecord, after: explain_pb2.ExplanationRecord) -> bool:
        compared = compare_maps(before, after)
        for (key, quantity, modalities), same in compared:
            verdict = "same bytes" if same else "DIFFERENT"
            self._out.print(Text(f"replay {key} {modalities} {quantity}: {verdict}", style="" if same else "red"))
        different = _different(compared)
        if different:
            for difference in name_differences(before, after):
                self._out.print(Text(f"not as it was: {difference}"), soft_wrap=True)
        return not different


def _different(compared: Sequence[tuple[object, bool]]) -> bool:
    return any(not same for _, same in compared)
