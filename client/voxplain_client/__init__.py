"""The client: typed calls, the `voxplain` command, NIfTI in and out, pictures."""
