"""Progress as lines, for logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from voxplain.v1 import explain_pb2

from voxplain_client.command.stage_text import describe_stage, describe_turn
from voxplain_client.events import Event, MethodResult, Progress
from voxplain_client.pictures.overview_text import outcome_in_words

SECONDS_BETWEEN_LINES = 5.0


class PlainDisplay:
    """A line when something changes, else every few seconds."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._last: tuple[int, str] = (-1, "")
        self._last_s = float("-inf")
        self._ended: set[str] = set()

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, MethodResult):
            # Another call goes on with what was drained.
            if event.outcome != explain_pb2.OUTCOME_DRAINED:
                self._ended.add(event.method_key)
            self._print(f"{event.method_key}: {outcome_in_words(event.outcome)} {event.description}".rstrip())
        elif describe_turn(event):
            self._print(describe_turn(event))

    def close(self) -> None:
        """Nothing to put in order."""

    def _show_progress(self, progress: Progress) -> None:
        # The last Progress of a method may come after its end.
        if progress.method_key in self._ended:
            return
        now = self._clock()
        if (progress.stage, progress.method_key) == self._last and now - self._last_s < SECONDS_BETWEEN_LINES:
            return
        self._last, self._last_s = (progress.stage, progress.method_key), now
        text = describe_stage(progress)
        if progress.evaluations_total:
            done, total = progress.evaluations_done, progress.evaluations_total
            text = f"{progress.method_key}: {done:,} of {total:,} evaluations; {text}"
        self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
