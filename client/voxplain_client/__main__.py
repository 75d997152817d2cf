"""`python -m voxplain_client` is the `voxplain` command."""

from __future__ import annotations

import sys

from voxplain_client.command.main import main

if __name__ == "__main__":
    sys.exit(main())
