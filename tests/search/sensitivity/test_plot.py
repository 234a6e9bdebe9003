from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.core.errors import InputError
from search.knapsack import front
from search.sensitivity.job import Solution
from search.sensitivity.plot import draw_front, front_info

FRONT = front([np.array([0.0, 1.0])], [np.array([1.0, 0.5])])
UNIFORM = Solution("T8", None, {"a": "T8"}, 1.0, 0.0, 1.1, 0.6)
FOUND = Solution("0.5", 0.5, {"a": "BC8"}, 0.5, 1.0, 2.1, 0.4)


def test_what_is_drawn(tmp_path: Path) -> None:
    info = front_info(FRONT, [UNIFORM], [FOUND], "energy")
    assert info.front == ((0.5, 1.0), (1.0, 0.0))
    assert info.uniforms == (("T8", 1.0, 0.0, 0.6),) and info.found == (("0.5", 0.5, 1.0, 0.4),)
    assert "not trained" in info.accuracy
    draw_front(info, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"cannot be written"):
        draw_front(info, tmp_path / "none" / "front.png")


def test_test_accuracies_are_drawn_where_all_networks_are_trained() -> None:
    trained = [replace(s, trained={"test_accuracy": 0.9}) for s in (UNIFORM, FOUND)]
    assert front_info(FRONT, trained[:1], trained[1:], "latency").found[0][3] == 0.9
    assert front_info(FRONT, [UNIFORM], trained[1:], "latency").found[0][3] == 0.4
