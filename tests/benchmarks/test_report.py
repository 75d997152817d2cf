"""The report and its bounds; nothing is measured here."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxplain_client.method_names import METHOD_NAMES

from tests.benchmarks import full, part, report
from tests.benchmarks.bounds import LIMITS, figure
from tests.benchmarks.dirty_boxes import layers, mean_work
from tests.benchmarks.estimates import SIXTEEN
from tests.benchmarks.subjects import SUBJECTS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path


def test_what_is_written_is_read_again(root: Path) -> None:
    figures = [figure("upload/136MiB", 0.9, "GB/s", "median of 5"), figure("limit/deep_lift/vs_captum_tuned", 1.5, "x")]
    report.write_report(figures, 60.0)
    assert report.read_report() == {each.name: each for each in figures}


def test_both_allocators_of_a_row_stand_on_one_line(root: Path) -> None:
    figures = [figure(f"limit/lime_same_samples/vs_captum_{name}", 2.0, "x") for name in ("default", "tuned")]
    report.write_report(figures, None)
    page = (root / "docs" / "benchmarks.md").read_text()
    assert "| lime_same_samples | 2 x | >= 2.2 | NO | 2 x | >= 1.1 | yes |" in page


def test_a_part_that_failed_is_named(root: Path) -> None:
    report.write_report([figure("upload/136MiB", 0.9, "GB/s")], None, ["memory (exit status 1)"])
    assert "memory (exit status 1)" in (root / "docs" / "benchmarks.md").read_text()


def test_the_page_begins_with_the_call_and_what_is_missed(root: Path) -> None:
    rows = [
        figure(f"limit/all_sixteen_one_call/vs_captum_{name}", value, "x") for name, value in (("default", 52), ("tuned", 20))
    ]
    report.write_report([figure("call/all_sixteen", 1260, "s"), *rows], None)
    (line,) = [each for each in (root / "docs" / "benchmarks.md").read_text().splitlines() if each.startswith("**In short.**")]
    assert "21 minutes, 52 and 20 times faster" in line
    assert line.endswith("1 of 2 bounds are met; missed: `limit/all_sixteen_one_call/vs_captum_tuned`.")


@pytest.mark.parametrize("row", LIMITS)
def test_a_row_has_a_bound_for_each_allocator(row: str) -> None:
    found = [figure(f"limit/{row}/vs_captum_{name}", 1.0, "x").bound for name in ("default", "tuned")]
    assert found == list(LIMITS[row])


def test_a_worker_may_need_four_gib_for_any_method() -> None:
    found = figure("memory/worker_deep_lift", 5000.0, "MiB")
    assert (found.bound, found.met) == (4096.0, False)


def test_a_part_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(part.PARTS, "absent", "no_such_module:measure")
    assert list(part.run_part("absent", cache=tmp_path)) == ["not there"]


def test_the_sixteen_are_those_of_the_study() -> None:
    own = {"modality-shapley", "antithetic-shapley", "leverage-shap", "fold-over-lime"}
    assert set(SIXTEEN) == set(METHOD_NAMES) - own


def test_the_picture_counts_what_the_engine_counts() -> None:
    work = mean_work()
    whole, dirty = (sum(each[side] for each in work) for side in (0, 1))
    assert whole == pytest.approx(46.3, abs=0.05)
    assert dirty == pytest.approx(1.467, abs=0.001)
    assert [each.stop - each.start for each in layers(45)][:3] == [13, 9, 11]


def test_the_page_of_other_networks_has_a_column_for_each(root: Path) -> None:
    figures = [{"name": "limit/lime_same_samples/vs_captum_default", "value": 1.25, "unit": "x", "detail": ""}]
    page = full.page({"unet/128/regression": {"figures": figures, "failed": ""}})
    header = next(line for line in page.splitlines() if line.startswith("| row | resnet18-stem1"))
    assert all(name in header for name in SUBJECTS if name != full.HEADLINE)
    assert "| lime_same_samples |  |  |  | 1.25 |" in page
    assert "`unet/128/occlusion` is not measured yet" in page
