"""`python -m voxplain_client` is the `voxplain` command."""

from voxplain_client.command.main import main

raise SystemExit(main())
