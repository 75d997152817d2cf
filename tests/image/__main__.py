"""`make image-test`: builds the image without a container engine, and explains the demo through it.

Debian's buildah does it, with chroot isolation and the vfs storage, on a base that debootstrap makes. What pip would fetch is
fetched here and handed in as a folder, so that the build itself looks nowhere else. Needs root, buildah and debootstrap.

    python -m tests.image [--target cpu|gpu] [--base IMAGE] [--keep]

The target `gpu` needs no GPU: every library that CUDA needs must be found but the driver's, the server must refuse to start on
`cuda` for want of a device, and explain the demo on the CPU. pip must find torch's CUDA build; takes 40 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".image-test"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
IMAGE = "localhost/voxplain:image-test"
EXTRAS = {"cpu": "server-cpu", "gpu": "server"}
BESIDE = {"cpu": (), "gpu": ("onnxruntime-gpu[cuda,cudnn]",)}
"""What the Dockerfile installs with the package."""
BASE = "localhost/voxplain-base:image-test"
COMPILERS = ("gcc", "cc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "go")
READY_SECONDS = 300
MODALITIES = ("t1", "t1c", "t2", "flair")
BUILDAH = ("buildah", "--storage-driver", "vfs")

DRIVER = {"libcuda.so.1"}
"""Comes with the node."""
CUDA_LIBRARIES = """
import ctypes, json, pathlib, onnxruntime, torch
onnxruntime.preload_dlls()
place = pathlib.Path(onnxruntime.__file__).parent / "capi"
missing = []
try:
    ctypes.CDLL(str(place / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(place / "libonnxruntime_providers_cuda.so"))
except OSError as error:
    missing.append(str(error).split(":")[0])
print(json.dumps({"torch": torch.version.cuda, "missing": missing}))
"""
"""Asked inside the image. The loader names the first library that it lacks."""


class ImageTestFailed(RuntimeError):
    """What was promised of the image does not hold; the message says what."""


def main() -> int:
    """Build, look into the image, run it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make image-test", description=__doc__)
    parser.add_argument("--target", choices=[*EXTRAS], default="cpu", help="of the Dockerfile")
    parser.add_argument("--base", help="base image; default: one that debootstrap makes")
    parser.add_argument("--keep", action="store_true", help="keep the image that was built")
    given = parser.parse_args()
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        sys.stderr.write(f"image-test needs root and Debian's packages buildah and debootstrap; missing: {missing or 'root'}\n")
        return 2
    CACHE.mkdir(exist_ok=True)
    try:
        build(given.base or make_base(), given.target)
        with mounted() as root:
            look_into(root)
            if given.target == "gpu":
                find_cuda(root)
            explain_through(root)
    except ImageTestFailed as failed:
        sys.stderr.write(f"image-test: {failed}\n")
        return 1
    finally:
        if not given.keep:
            subprocess.run([*BUILDAH, "rmi", "--force", IMAGE], check=False, capture_output=True)
    print("image-test: passed")
    return 0


def make_base() -> str:
    """A Debian with Python and nothing else, made once."""
    if subprocess.run([*BUILDAH, "inspect", "--type", "image", BASE], capture_output=True, check=False).returncode == 0:
        return BASE
    tree = CACHE / "base"
    if not (tree / "usr/bin/python3").exists():
        shutil.rmtree(tree, ignore_errors=True)
        run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree), *mirror()])
    container = run([*BUILDAH, "from", "scratch"]).strip()
    run([*BUILDAH, "add", "--quiet", container, str(tree), "/"])
    run([*BUILDAH, "commit", "--quiet", "--rm", container, BASE])
    return BASE


def mirror() -> list[str]:
    """Where this host's apt fetches Debian from."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for line in path.read_text().splitlines():
            if line.startswith("URIs:"):
                return [line.split()[1]]
    return []


def fetch_wheels(target: str) -> Path:
    """Everything that the build installs, and what builds the package itself, as this host's pip finds it."""
    wheels = CACHE / f"wheels-{target}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted += BESIDE[target]
    for extra in ("compute", "front", EXTRAS[target]):
        wanted += [each for each in extras[extra] if not each.startswith("voxplain[")]
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    run([sys.executable, "-m", "pip", "download", "--quiet", *constraint, "--dest", str(wheels), *wanted])
    return wheels


def build(base: str, target: str) -> None:
    """Build a target; pip takes what was fetched and looks nowhere else."""
    volume = f"{fetch_wheels(target)}:/wheels:ro"
    arguments = ("BASE=" + base, "PIP_FIND_LINKS=/wheels", "PIP_NO_INDEX=1")
    given = [part for each in arguments for part in ("--build-arg", each)]
    options = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--volume", volume]
    command = [*BUILDAH, "build", *options, *given, "--target", target, "--tag", IMAGE, str(ROOT)]
    run(command, show=True)


@contextmanager
def mounted() -> Iterator[Path]:
    """A container of the image, as a folder."""
    container = run([*BUILDAH, "from", "--pull-never", IMAGE]).strip()
    try:
        yield Path(run([*BUILDAH, "mount", container]).strip())
    finally:
        subprocess.run([*BUILDAH, "rm", container], check=False, capture_output=True)


def look_into(root: Path) -> None:
    """See that the image is what it says."""
    told = json.loads(run([*BUILDAH, "inspect", "--type", "image", IMAGE]))["Docker"]["config"]
    expect(told["User"] == "65532:65532", "the image runs as another user than 65532")
    expect(bool(told.get("Healthcheck")), "the image has no health check")
    folders = ("usr/bin", "usr/local/bin", "bin", "opt/voxplain/bin")
    found = [name for name in COMPILERS for folder in folders if (root / folder / name).exists()]
    expect(not found, f"the image holds {found}")
    writable = [path for path in (root / "opt/voxplain", root / "models") if path.stat().st_mode & 0o022]
    expect(not writable, "the program or the models may be written by anybody")
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"image-test: {size / 1e6:,.0f} MB in the image")


def find_cuda(root: Path) -> None:
    """See that CUDA would be found, and that a host without a device is told so."""
    told = in_image(root, ["python3", "-c", CUDA_LIBRARIES])
    report, _ = told.communicate(timeout=READY_SECONDS)
    expect(told.returncode == 0, "the libraries of CUDA could not be looked up")
    found = json.loads(report)
    expect(found["torch"] is not None, "the image holds a torch without CUDA: let pip look where its CUDA build is")
    expect(set(found["missing"]) <= DRIVER, f"ONNX Runtime's CUDA provider lacks {sorted(set(found['missing']) - DRIVER)}")
    lacking = ", ".join(found["missing"]) or "nothing"
    print(f"image-test: torch for CUDA {found['torch']}; ONNX Runtime's CUDA provider lacks {lacking}")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return
    refusing = in_image(root, ["voxplain-server", "--threads-per-worker", "1", "--device", "cuda"], stderr=subprocess.PIPE)
    _, said = refusing.communicate(timeout=READY_SECONDS)
    expect(
        refusing.returncode == 1 and "--device cuda" in said, "without a device the server does not say that CUDA is missing"
    )


def explain_through(root: Path) -> None:
    """Serve from the image as its user, with a root that cannot be written to, and explain the demo's first case."""
    case = ROOT / "examples/glioma_demo/cases/case-1"
    with tempfile.TemporaryDirectory() as out, serving(root) as server:
        port = json.loads(server.stdout.readline() if server.stdout is not None else "{}")["port"]
        files = [part for name in MODALITIES for part in ("--volume", f"{name}={case / f'{name}.nii.gz'}")]
        asked = [*("--method", "gradient"), *("--method", "grad-cam"), *("--method", "feature-ablation")]
        client = [sys.executable, "-m", "voxplain_client", "explain", "--server", f"127.0.0.1:{port}"]
        run([*client, "--model", "glioma-demo", *files, *asked, "--out", out], show=True)
        expect((Path(out) / "overview.png").exists(), "no overview was written")
        expect(in_image(root, ["voxplain-server", "health"]).wait(60) == 0, "the health check fails while the server serves")
        server.send_signal(signal.SIGTERM)
        expect(server.wait(60) == 0, "the server did not end cleanly on SIGTERM")


@contextmanager
def serving(root: Path) -> Iterator[subprocess.Popen[str]]:
    """The image's own command; a server that is not ready in time is killed."""
    server = in_image(root, ["voxplain-server", "--threads-per-worker", "1", "--device", "cpu"])
    watchdog = subprocess.Popen(["sh", "-c", f"sleep {READY_SECONDS}; kill -9 {server.pid}"], start_new_session=True)
    try:
        yield server
    finally:
        os.killpg(watchdog.pid, signal.SIGKILL)
        watchdog.wait()
        if server.poll() is None:
            server.kill()
            server.wait()


def in_image(root: Path, command: Sequence[str], *, stderr: int | None = None) -> subprocess.Popen[str]:
    """A command in the image: its variables, user 65532 without capabilities, everything read-only but a small /tmp.

    A mount namespace does what a runtime would: buildah's chroot isolation leaves the root writable.
    """
    told = json.loads(run([*BUILDAH, "inspect", "--type", "image", IMAGE]))["Docker"]["config"]
    mounts = [
        f"mount --rbind {root} {root}",
        f"mount -o remount,bind,ro {root}",
        f"mount -t tmpfs -o size=16m,mode=1777 tmpfs {root}/tmp",
        f"mount -t proc proc {root}/proc",
        f"mount --rbind -o ro /dev {root}/dev",
    ]
    user = "setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
    script = " && ".join([*mounts, f'exec chroot {root} {user} "$@"'])
    variables = dict(each.split("=", 1) for each in told["Env"])
    variables["PATH"] += ":/usr/sbin:/usr/bin:/sbin:/bin"
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command],
        env=variables | {"VOXPLAIN_HOST": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def expect(holds: bool, otherwise: str) -> None:
    """Fail unless it holds."""
    if not holds:
        raise ImageTestFailed(otherwise)


def run(command: Sequence[str], *, show: bool = False) -> str:
    """Run a command that must succeed; its standard output, unless it is shown."""
    done = subprocess.run(command, check=False, stdout=None if show else subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        raise ImageTestFailed(f"{command[0]} {command[1]} ended with status {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    raise SystemExit(main())
