"""Draws of hypothesis: the same in every run, so that a change is what turns a test red; `make explore` draws anew."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("VOXPLAIN_DRAWS", "same"))
