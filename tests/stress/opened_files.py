"""Which files a process and its children really opened, by the system's account: strace."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_OPENED = re.compile(r"= \d+<([^>]+)>$")
_READ = re.compile(r"^\d+ +(?:read|pread64|readv|preadv|preadv2|mmap)\(.*?\b\d+<([^>]+)>.*= (?:0x)?[1-9a-f][0-9a-f]*$")
_CALLS = "open,openat,openat2,creat,read,pread64,readv,preadv,preadv2,mmap"


def strace() -> str | None:
    """Where it is, None where it is missing."""
    return shutil.which("strace")


def traced(account: Path) -> tuple[str, ...]:
    """What goes before a command so that its opened and read files are written down. The command keeps its process id."""
    options = ("-D", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "0", "-e", f"trace={_CALLS}")
    return (strace() or "strace", *options, "-o", str(account))


def opened(account: Path) -> set[str]:
    """Real paths of all files that were opened: what a link led to, not its name."""
    return _found(account, _OPENED)


def read(account: Path) -> set[str]:
    """Real paths of all files of which anything was read or mapped."""
    return _found(account, _READ)


def _found(account: Path, pattern: re.Pattern[str]) -> set[str]:
    found = set[str]()
    with account.open(errors="replace") as lines:
        for line in lines:
            match = pattern.search(line.rstrip("\n"))
            if match is not None:
                found.add(match[1])
    return found
