"""The main job on the demo: start a server, explain one case by all methods over gRPC, say where the maps' mass lies, stop.

python -m examples.glioma_demo.demo --out demo-out [--case case-1] [--method NAME ...]
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODALITIES = ("t1", "t1c", "t2", "flair")
STOP_SECONDS = 30.0


@contextmanager
def running_server(models: Path, *, log: Path) -> Iterator[str]:
    """Start `voxplain-server` on free ports and yield its address; stop it as Kubernetes would.

    Args:
        models: its model folder.
        log: file that takes what it says on standard error.

    Raises:
        RuntimeError: the server ended before it was ready; its own message is in `log`.
    """
    command = [sys.executable, "-m", "voxplain_server", "--models", str(models)]
    command += ["--port", "0", "--health-port", "0", "--metrics-port", "0"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as server,
    ):
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise RuntimeError("the server ended before it was ready; see its message in server.log")
            yield f"127.0.0.1:{json.loads(line)['port']}"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def main() -> int:
    """Run the demo; returns the exit code of the first step that failed, else 0."""
    arguments = argparse.ArgumentParser(description="Explain one synthetic glioma case by all methods.")
    arguments.add_argument("--out", type=Path, default=Path("demo-out"))
    arguments.add_argument("--case", default="case-1")
    arguments.add_argument("--method", action="append")
    chosen = arguments.parse_args()
    case = HERE / "cases" / chosen.case
    start = time.monotonic()
    with running_server(HERE / "models", log=chosen.out / "server.log") as address:
        explain = ["explain", "--server", address, "--model", "glioma-demo"]
        for name in MODALITIES:
            explain += ["--volume", f"{name}={case / name}.nii.gz"]
        for method in chosen.method or ["all"]:
            explain += ["--method", method]
        explain += ["--outline", str(case / "tumour_t1c.nii.gz"), "--out", str(chosen.out), "--overwrite"]
        sys.stdout.write(f"$ voxplain {shlex.join(explain)}\n\n")
        sys.stdout.flush()
        code = subprocess.run([sys.executable, "-m", "voxplain_client", *explain], check=False).returncode
    if code != 0:
        return code
    sys.stdout.write("\n")
    sys.stdout.flush()
    weigh = [sys.executable, "-m", "examples.glioma_demo.where_the_mass_lies", str(chosen.out), "--case", str(case)]
    code = subprocess.run(weigh, check=False).returncode
    sys.stdout.write(f"\nDone in {time.monotonic() - start:.0f} s. Look at {chosen.out / 'overview.png'}.\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
