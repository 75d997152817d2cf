"""Progress as bars that move, for terminals."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text
from voxplain.v1 import explain_pb2

from voxplain_client.command.stage_text import describe_seconds, describe_stage, describe_turn
from voxplain_client.events import Event, MethodResult, Prediction, Progress
from voxplain_client.pictures.overview_text import FINISHED, outcome_in_words


class LiveDisplay:
    """One bar for each method, and a line on the whole call above them."""

    def __init__(self, console: Console, methods: list[str]) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Evaluations(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._stage: TaskID = self._bars.add_task("connecting", total=None, note="", evaluations=False)
        self._tasks = {key: self._bars.add_task(key, total=None, start=False, note="", evaluations=True) for key in methods}
        self._started: dict[str, float] = {}
        self._ended: set[str] = set()
        self._bars.start()

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            self._bars.update(self._stage, description=describe_stage(event))
            self._advance(event)
        elif isinstance(event, Prediction):
            for plan in event.plans:
                if plan.method_key in self._tasks:
                    self._bars.update(self._tasks[plan.method_key], total=plan.evaluations or None)
        elif isinstance(event, MethodResult) and event.method_key in self._tasks:
            self._end(event)
        text = describe_turn(event)
        if text:
            self._bars.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the terminal in order."""
        self._bars.update(self._stage, visible=False)
        self._bars.stop()

    def _advance(self, progress: Progress) -> None:
        task = self._tasks.get(progress.method_key)
        # The last Progress of a method may come after its end.
        if task is None or progress.method_key in self._ended:
            return
        if progress.method_key not in self._started:
            self._started[progress.method_key] = time.monotonic()
            self._bars.start_task(task)
        error = f"standard error {progress.standard_error:.2g}" if progress.HasField("standard_error") else ""
        self._bars.update(task, completed=progress.evaluations_done, total=progress.evaluations_total or None, note=error)

    def _end(self, result: MethodResult) -> None:
        task = self._tasks[result.method_key]
        if result.outcome == explain_pb2.OUTCOME_DRAINED:
            # Another call goes on with it.
            self._ended.discard(result.method_key)
        else:
            self._ended.add(result.method_key)
        if result.method_key not in self._started:
            self._bars.start_task(task)
        seconds = result.compute_duration.ToNanoseconds() / 1e9
        note = f"{outcome_in_words(result.outcome)} in {describe_seconds(seconds)}"
        done, total = result.evaluations_done, result.evaluations_planned or 1
        if result.outcome in FINISHED:
            # Gradient passes and cached evaluations may count less than was planned; nothing is left to do.
            total = done = done or total
        self._bars.update(task, completed=done, total=total, note=note)
        self._bars.stop_task(task)


class _Evaluations(ProgressColumn):
    """Evaluations done and planned."""

    def render(self, task: Task) -> Text:
        """One cell."""
        if not task.fields["evaluations"] or task.total is None:
            return Text("")
        return Text(f"{task.completed:,.0f}/{task.total:,.0f}", justify="right")


class _Rate(ProgressColumn):
    """Evaluations per second."""

    def render(self, task: Task) -> Text:
        """One cell."""
        speed = task.finished_speed or task.speed
        if speed is None or not task.fields["evaluations"]:
            return Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s", justify="right")
