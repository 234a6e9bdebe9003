"""Where tests find the real tools, and what the recorded runs were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.timeloop.installation import find

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(scope="session")
def real_accelergy():
    if not find().accelergy_works:
        pytest.skip("the real Accelergy with its table-based plug-in is not installed")
    return find()
