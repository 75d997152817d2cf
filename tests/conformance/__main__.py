"""`make conformance`: every scenario in every language whose toolchain is there, against one real server.

    python -m tests.conformance [--language NAME ...] [--scenario NAME ...] [--require NAME,NAME]

Exits with 1 when a scenario fails, a driver cannot be built, or the toolchain of a required language is missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.conformance.cases import Cases, write_cases
from tests.conformance.driver import Driver, DriverFailed
from tests.conformance.judge import digests, judge
from tests.conformance.language import LANGUAGES, BuildFailed, Language
from tests.conformance.protected import Protected, protected_server
from tests.conformance.scenario import Scenario, read_scenarios
from tests.conformance.trouble import SERVER_ARGUMENTS, calls_in_flight, surroundings
from tests.serving import RunningServer

IDLE_SECONDS = 15.0

Verdicts = dict[tuple[str, str], list[str]]
"""By scenario and language: what is wrong; empty: passed."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What scenarios run on: cases, the open server, and the one that asks who is there."""

    cases: Cases
    server: RunningServer
    protected: Protected


def main() -> int:
    """Run the suite and print the table."""
    asked = _arguments()
    scenarios = [each for each in read_scenarios() if not asked.scenario or each.name in asked.scenario]
    wanted = [each for each in LANGUAGES if not asked.language or each.name in {"python", *asked.language}]
    verdicts: Verdicts = {}
    languages = []
    for language in wanted:
        problem = _prepare(language)
        if not problem:
            languages.append(language)
        elif language.present or language.name in asked.require.split(","):
            verdicts |= {(each.name, language.name): [problem] for each in scenarios}
            sys.stdout.write(f"{language.name}: {problem}\n")
    with tempfile.TemporaryDirectory() as scratch:
        cases = write_cases(Path(scratch))
        with (
            RunningServer(cases.models, SERVER_ARGUMENTS) as server,
            protected_server(cases.models, Path(scratch)) as protected,
        ):
            verdicts |= run(scenarios, languages, stage=Stage(cases, server, protected))
    Console(width=120).print(_table(scenarios, wanted, verdicts))
    failed = sum(bool(faults) for faults in verdicts.values())
    for (scenario, name), faults in verdicts.items():
        for fault in faults:
            sys.stdout.write(f"{scenario} in {name}: {fault}\n")
    sys.stdout.write(f"{len(verdicts) - failed} passed, {failed} failed\n")
    return 1 if failed else 0


def run(scenarios: Sequence[Scenario], languages: Sequence[Language], *, stage: Stage) -> Verdicts:
    """Run scenarios, each in all languages, Python first."""
    verdicts: Verdicts = {}
    with ExitStack() as held:
        drivers = {language.name: held.enter_context(Driver(language.command)) for language in languages}
        for scenario in scenarios:
            reference: Mapping[str, str] | None = None
            for language in languages:
                start = time.monotonic()
                try:
                    events = converse(scenario, drivers[language.name], stage)
                    faults = judge(scenario.expect, events, reference)
                except DriverFailed as failure:
                    events, faults = [], [str(failure)]
                    drivers[language.name] = held.enter_context(Driver(language.command))
                if language.name == "python":
                    reference = digests(events)
                if scenario.expect.idle and not _idle(stage.server):
                    faults.append("the server still holds its call")
                verdicts[scenario.name, language.name] = faults
                seconds = time.monotonic() - start
                sys.stdout.write(f"{scenario.name} in {language.name}: {'; '.join(faults) or 'passed'} ({seconds:.1f} s)\n")
                sys.stdout.flush()
    return verdicts


def converse(scenario: Scenario, driver: Driver, stage: Stage) -> list[dict[str, Any]]:
    """Run one scenario in one language and return its events.

    Raises:
        DriverFailed: the driver ended first, or took too long.
    """
    volumes = stage.cases.volumes[scenario.case or scenario.model]
    shown = stage.protected.shown(scenario.access) | {"server": stage.protected.address} if scenario.access else {}
    spec = {"model": scenario.model, **scenario.request["spec"]}
    events = []
    with surroundings(scenario.trouble, stage.server) as around:
        request = {**scenario.request, "spec": spec, "server": around.address, "volumes": volumes, **shown}
        for event in driver.events(request):
            events.append(event)
            around.watch(event)
    return events


def _prepare(language: Language) -> str:
    """Build a driver; what is wrong, else empty."""
    if not language.present:
        return f"its toolchain is missing: {', '.join((*language.programs, *language.files))}"
    try:
        language.build()
    except BuildFailed as failure:
        return f"cannot be built: {failure}"
    return ""


def _idle(server: RunningServer) -> bool:
    end = time.monotonic() + IDLE_SECONDS
    while calls_in_flight(server):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _table(scenarios: Sequence[Scenario], languages: Sequence[Language], verdicts: Verdicts) -> Table:
    drawn = Table(title="scenario x language", title_justify="left")
    drawn.add_column("scenario")
    for language in languages:
        drawn.add_column(language.name)
    for scenario in scenarios:
        cells = [verdicts.get((scenario.name, language.name)) for language in languages]
        drawn.add_row(scenario.title, *["no toolchain" if cell is None else "FAILED" if cell else "passed" for cell in cells])
    return drawn


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="Run every client through every scenario.")
    parser.add_argument("--language", action="append", help="of the others, only these; Python always runs")
    parser.add_argument("--scenario", action="append", help="only these")
    parser.add_argument("--require", default="", help="languages whose missing toolchain is a failure, with commas between")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
