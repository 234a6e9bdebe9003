"""Every recorded failure in one line."""

from __future__ import annotations

from typing import Any

import pytest

from dse.engines.timeloop.logs import failure, found_no_mapping, no_mapping_reason
from tests.dse.engines.timeloop.recordings import recorded


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("accelergy_fails", 0, "Failed to run Accelergy. Did you install Accelergy"),
        ("bad_mapping", 1, "ERROR: parsing mapping: product of all factors of dimension P is 13, which is not equal"),
        ("malformed", -6, "what(): yaml-cpp: error at line 2, column 1: end of map flow not found"),
        ("missing_dimension", -6, "timeloop-mapper: src/workload/workload.cpp:168: void problem::ParseWorkload"),
        ("unknown_algorithm", 255, "ERROR: unsupported search algorithm: best"),
        ("unknown_metric", -6, "timeloop-mapper: src/applications/mapper/mapper-thread.cpp:81: double Cost("),
    ],
)
def test_the_line_that_says_why(name: Any, code: Any, line: Any) -> None:
    run = recorded(name)
    assert run.code == code
    assert not any(text.strip() for text in run.files.values())
    assert failure(run.log).startswith(line)
    assert not found_no_mapping(run.log)


def test_a_search_without_a_mapping_says_how_it_ended_and_what_was_in_the_way() -> None:
    run = recorded("no_mapping")
    assert run.code == 0 and not any(run.files.values())  # which is why the exit code alone means nothing
    assert found_no_mapping(run.log)
    assert no_mapping_reason(run.log) == (
        "no valid mappings found; 5000 invalid mappings (4840 fanout, 160 capacity) found since the last valid "
        "mapping; inter_mac_spatial: mapped fanoutY 21 exceeds hardware fanoutY 1 (3528 times); "
        "inter_pe_spatial: mapped fanoutX 7 exceeds hardware fanoutX 3 (2274 times); "
        "inter_cluster_spatial: mapped fanoutX 7 exceeds hardware fanoutX 5, mapped fanoutY 11 exceeds hardware "
        "fanoutY 4 (1910 times); register: mapped tile size 4 exceeds buffer capacity 1 (1280 times)"
    )
    assert "search algorithm is done" in no_mapping_reason(recorded("exhausted").log)


def test_logs_that_say_nothing() -> None:
    assert failure("") == failure("\n  \n") == "no output"
    assert failure("one\nlast words\n\n") == "last words"
    assert len(failure("ERROR: " + "x" * 10_000)) < 400
