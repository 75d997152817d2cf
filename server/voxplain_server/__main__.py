"""The command `voxplain-server`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

from voxplain_server.settings import SettingsRefused, read_remote, read_settings


def main() -> int:
    """Serve, or with `check DIR` report on bundles, or with `health` ask a server on this host.

    Returns:
        The exit status: 2 for settings that cannot be.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["check"]:
        return _check(arguments[1:])
    if arguments == ["--version"]:
        sys.stdout.write(f"voxplain-server {version('voxplain')}\n")
        return 0
    if arguments == ["health"]:
        from voxplain_server.service.health import is_serving

        return 0 if is_serving(os.environ) else 1
    try:
        settings = read_settings(arguments, os.environ)
    except SettingsRefused as refused:
        sys.stderr.write(f"voxplain-server: {refused}\n")
        return 2
    # gRPC's core writes free text to standard error; the log is made of typed fields only.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from voxplain_server.app import serve

    return serve(settings)


def _check(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: voxplain-server check DIR\n")
        return 2
    # The report loads models; whoever serves must not pay for that import.
    from voxplain_server.workers.check_report import main as report

    try:
        return report(Path(arguments[0]), read_remote(os.environ))
    except SettingsRefused as refused:
        sys.stderr.write(f"voxplain-server: {refused}\n")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
