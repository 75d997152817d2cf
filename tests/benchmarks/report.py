"""The figures as a table, as docs/benchmarks.md and as bench.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence, Set
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from tests.benchmarks.bounds import BOUNDS, LIMITS
from tests.benchmarks.figure import Figure

COLUMNS = ("figure", "value", "bound", "met", "how")
ROOT = Path(__file__).resolve().parents[2]
SIGNS = {"min": ">=", "max": "<="}


def table(figures: Sequence[Figure]) -> Table:
    """One row for each figure."""
    drawn = Table(title="figures beside their bounds", title_justify="left")
    for column, justify in (("figure", "left"), ("value", "right"), ("bound", "right"), ("met", "left"), ("detail", "left")):
        drawn.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for each in figures:
        drawn.add_row(each.name, f"{each.value:.3g} {each.unit}", _bound(each), _met(each), each.detail)
    return drawn


def read_report() -> dict[str, Figure]:
    """The figures of the last report by name, with their details from the page; empty where there is none."""
    held, page = ROOT / "bench.json", ROOT / "docs" / "benchmarks.md"
    if not held.exists() or not page.exists():
        return {}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.read_text().splitlines() if line[:2] == "| "]
    details = {row[0]: row[-1] for row in rows if len(row) == len(COLUMNS)}
    keys = ("name", "value", "unit", "bound", "kind")
    figures = [
        Figure(**{key: each[key] for key in keys}, detail=details.get(each["name"], ""))
        for each in json.loads(held.read_text())
    ]
    return {each.name: each for each in figures}


def write_report(figures: Sequence[Figure], seconds: float | None, failed: Sequence[str] = ()) -> None:
    """Write docs/benchmarks.md and bench.json at the repository's root; `failed` names the parts that gave no figures."""
    text = PAGE.format(
        host=describe_host(),
        took="Some figures were measured again by themselves."
        if seconds is None
        else f"The run took {seconds / 60:.0f} minutes.",
        short=_in_short(figures),
        failed=f"\n**Parts that failed:** {', '.join(failed)}.\n" if failed else "",
        unmeasured=_unmeasured({each.name for each in figures}),
        limits="\n".join(_limit_rows(figures)),
        rows="\n".join(_row(each) for each in figures),
    )
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    held = [
        {"name": each.name, "value": each.value, "unit": each.unit, "bound": each.bound, "kind": each.kind, "met": each.met}
        for each in figures
    ]
    (ROOT / "bench.json").write_text(json.dumps(held, indent=2) + "\n")


PAGE = """# Benchmarks

Made by `make bench`; the same figures for programs are in `bench.json`. Bounds stand once, in `tests/benchmarks/bounds.py`. A
ratio is against the peer that its name says, measured in the same run; parity is measured before any ratio. Absolute seconds
depend on the host. `python -m tests.benchmarks NAME` measures one part again. Other networks and volumes:
`make bench-full`, [benchmarks-full.md](benchmarks-full.md). Why it is fast: [how-it-is-fast.md](how-it-is-fast.md).

Host: {host} {took}

{short}
{failed}{unmeasured}
## Against Captum

How many times faster than Captum with glibc's default allocator, and with the tuned one (`MALLOC_MMAP_MAX_=0` and two more).

| row | default | bound | met | tuned | bound | met |
|---|---|---|---|---|---|---|
{limits}

## All figures

| figure | value | bound | met | how |
|---|---|---|---|---|
{rows}

**The network** (`tests/benchmarks/vgg_like.py`) has the layout of the published glioma classifier (Jin et al. 2023): eleven
3x3x3 convolutions with BatchNorm in six stages, 46.3 GFLOP for 4 x 128^3, float32, seeded random weights. The case fills 40 %
of the grid, the rest is zero. **Captum** runs in fresh processes with two threads and its best settings: channels-last
memory, gradients off for perturbation methods, one perturbation in a pass. Its cost of a perturbation does not depend on
where or how large it is, so a few are timed and multiplied, and what it spends once is added (ShapleyValueSampling: a Python
loop over all voxels of the masks for every permutation). **Ours** runs in fresh servers with default options, which share
what they measure of a model. Occlusion windows are a uniform sample of the whole grid, drawn as whole blocks; `whole_grid`
and `all_sixteen` are every window. Captum's sixteen are added up from the rows above it; nobody waited for them. **Memory**
of a worker is its largest resident set; the other memory figures are the proportional set size summed over the server's
process tree, with memory files that no process maps added.

**How far a run can be trusted.** The host is shared, and what its page faults cost decides the default allocator's rows: a
pass of Captum at 4 x 128^3 took 974 ms in one run's occlusion part and 582 and 722 in two others of the same day, with the
tuned allocator 393, 334 and 322; a window of ours 10.8, 11.8 and 9.7. The first of these hours gave 51.1 / 21.7 for all
sixteen and 90 / 36 for the noise fill. Rows within a fifth of their bound are met in one hour and missed in the next.

**Upload** is bound by two cores: 0.14 GB take 0.10 s of the client's processor time (checksum, one copy, the socket) and 0.16
s of the front's (socket, gRPC's three copies, checksum, writing), of which 0.07 s were for pages never used before until the
front kept a file with its pages (docs/decisions/0009). In turn with each other, medians of 15: 0.80 GB/s into fresh files,
1.05 into the kept one, 1.38 for gRPC's Python alone. What else runs on the host shows at once: runs with fresh files gave
medians between 0.62 and 0.86. `transport_alone` and `storing_alone` are measured in turn with it: what gRPC's Python takes
for the same messages when nobody checks or keeps them, and what writing the bytes once into a fresh file takes. Tried without
gain, each in turn with the code as it was: pages reserved by a thread beside (the file's lock makes one wait for the other),
huge pages (memory files get none unless the host's administrator has said so), writing in a thread in batches of 1, 2, 4 and
8 MiB (the two cores are taken already), larger HTTP/2 frames, reads and windows, chunks of 64 to 512 KiB (slower), uploads
without turns (the same).

**Upload from Go** (Debian's Go 1.19 and grpc-go 1.33), profiled over 12 uploads of 0.14 GB: 0.18 s of the client's processor
time (checksum 0.04, marshalling 0.04, grpc-go's writer 0.07, which copies a message once more into frames and writes them to
the socket; our own code hands over views) and 0.24 s of the front's. Two cores cannot do that in less than 0.21 s, 0.68 GB/s;
it takes 0.24 to 0.27 s.

**Gradient parity and rounding.** Gradients of float32 depend on decisions: which voxel of a pooling window is the largest.
Counted on a net of five convolutions (4 x 128^3, random weights, 5.5 million windows), PyTorch's two memory layouts decide one
differently: a window of the third pooling whose two largest values are two float32 spacings apart and whose smallest is a third
below. It moves the gradient by 0.163 of its maximum at 0.45 % of the voxels; with the decisions of one layout imposed on the
other they agree within 1.0e-6, and against float64 each decides one or two windows otherwise (0.031 and 0.163). Ties in the
zero background are not the reason: they are exact in both layouts, and both take the first voxel. Folding BatchNorm rounds too:
on the benchmark's network PyTorch's own gradient moves by 0.046 when it is folded, and not at all between the network folded as
the exporter folds it and the twin of the file. So parity is measured against Captum folded alike and in
channels-last memory, in which we compute too; how far Captum is from itself stands beside it. Our forward pass does the same
operations as the file in the same order; only the backward pass, which decides nothing, is computed in another one.

**Where gradients spend their time**, one core, AVX-512, 128^3 channels-last: the input gradient of a convolution from 16 to 4
channels takes as long as one from 16 to 16 (290 against 310 ms), because a vector holds 16; ours gives the four neighbours in a
plane the free places. A ReLU writing elsewhere takes 29 ms beside a convolution of 292, in place 6.

**Where Occlusion spends its time** (noise fill, this host: two AMD cores, whose vectors of 512 bits take two steps). A
window takes 1.5 GFLOP on average in crops of four to eight windows. On one stream three quarters of the time are
convolutions at 96 to 105 GFLOP/s, nine tenths of what a core can do; cutting out and pasting boxes takes 13 %, ReLU and
pooling 3 %, planning 3 %, the rest is Python between layers. Two streams together reach 140 to 150 GFLOP/s. Captum's passes
with the tuned allocator run at 130 GFLOP/s, so 32 times fewer operations cannot make more than 50 times the speed on such
cores (noise fill; 37 is the bound), nor 76 times with the zero fill, whose windows that change anything lie in the middle
and are dearer, 1.7 GFLOP. Larger and smaller crops, other thresholds for joining shapes and packed weights were tried:
within the scatter of the host.
"""


def _in_short(figures: Sequence[Figure]) -> str:
    """The call as a whole, and which bounds are missed."""
    by_name = {each.name: each for each in figures}
    call, told = by_name.get("call/all_sixteen"), ""
    times = [by_name[name] for name in by_name if name.startswith("limit/all_sixteen_one_call/")]
    if call is not None and times:
        faster = " and ".join(f"{each.value:.0f}" for each in times)
        told = (
            f"One case of 4 x 128^3, all sixteen methods in one call over gRPC: {call.value / 60:.0f} minutes, {faster} times "
        )
        told += "faster than Captum one method after another (default allocator, tuned one). "
    bounded = [each for each in figures if each.bound is not None]
    missed = [f"`{each.name}`" for each in bounded if not each.met]
    but = f"; missed: {', '.join(missed)}" if missed else ""
    return f"**In short.** {told}{len(bounded) - len(missed)} of {len(bounded)} bounds are met{but}."


def _unmeasured(measured: Set[str]) -> str:
    """Says of which bounds the page holds no figure."""
    rows = (f"limit/{row}/vs_captum_{allocator}" for row in LIMITS for allocator in ("default", "tuned"))
    missing = [name for name in (*BOUNDS, *rows) if name not in measured]
    return f"\n**Not measured yet** on this host: {', '.join(missing)}.\n" if missing else ""


def _limit_rows(figures: Sequence[Figure]) -> Iterator[str]:
    """One line for each row of the table, both allocators beside one another."""
    by_name = {each.name: each for each in figures if each.name.startswith("limit/")}
    for name in dict.fromkeys(each.rpartition("/")[0] for each in by_name):
        cells = []
        for allocator in ("default", "tuned"):
            each = by_name.get(f"{name}/vs_captum_{allocator}")
            cells += ["", "", ""] if each is None else [f"{each.value:.3g} x", _bound(each), _met(each)]
        yield f"| {name.removeprefix('limit/')} | {' | '.join(cells)} |"


def _row(each: Figure) -> str:
    return f"| {each.name} | {each.value:.3g} {each.unit} | {_bound(each)} | {_met(each)} | {each.detail} |"


def describe_host() -> str:
    """The processor and what computes on it."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime-gpu", "captum", "grpcio", "numpy"))
    return f"{_cpu()}, {len(os.sched_getaffinity(0))} cores. {versions}."


def _bound(each: Figure) -> str:
    return "" if each.bound is None else f"{SIGNS[each.kind]} {each.bound:g}"


def _met(each: Figure) -> str:
    return "" if each.bound is None else ("yes" if each.met else "NO")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
