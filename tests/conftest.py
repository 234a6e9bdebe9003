"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("enos", deadline=None)  # first calls compile or load libraries, and machines are noisy
settings.load_profile("enos")
