"""What Timeloop wrote, read: recorded outputs as evaluations and mappings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.engines.native import NativeEngine
from dse.engines.timeloop.stats import parse_mapping, parse_stats
from tests.dse.engines.timeloop.recordings import FOLDER, SMALL, recorded, small_case, small_inputs
from tests.dse.model.test_golden import equals_recorded

MODEL_STATS = recorded("remainders").files["timeloop-model.stats.txt"]
SPEC, PROBLEM, ERT = small_inputs()


def stats(text: Any) -> Any:
    return parse_stats(text, SPEC, PROBLEM, "stats.txt")


def test_a_run_of_timeloop_model() -> None:
    found = stats(MODEL_STATS)
    case = small_case()
    total = case["fJ_per_compute"] * case["computes"] / 1000
    assert found.energy_pj == pytest.approx(total, abs=0.1)  # the sum of what is printed with two decimals
    equals_recorded(json.loads(json.dumps(found.document())) | {"energy_pj": total}, case)
    leak = {s.name: ERT.storage(s.name)["leak"] for s in SPEC.storages}
    most = {"dram": 1, "buffer": 1, "local": 7, "register": 15}
    assert found.leakage_pj == pytest.approx(sum(leak[n] * most[n] * found.cycles for n in most), abs=0.02)


def test_a_run_of_timeloop_mapper_that_was_stopped_by_its_limit() -> None:
    run = recorded("search")
    assert run.stopped and run.code == 0
    found = stats(run.files["timeloop-mapper.stats.txt"])
    mapping = parse_mapping(run.files["timeloop-mapper.map.yaml"], SPEC, PROBLEM, "map.yaml")
    ours = NativeEngine().evaluate(SPEC, PROBLEM, mapping, ERT)
    assert found.energy_pj == pytest.approx(ours.energy_pj, abs=0.1)
    assert (found.cycles, found.computes, found.compute_instances) == (
        ours.cycles, ours.computes, ours.compute_instances,
    )  # fmt: skip
    for level, tensors in ours.levels.items():
        for tensor, accesses in tensors.items():
            theirs = vars(found.levels[level][tensor])
            assert theirs == vars(accesses) | {"energy_pj": pytest.approx(accesses.energy_pj, abs=0.005001)}


def test_a_mapping_that_timeloop_mapper_wrote_goes_into_enos_model(run: Any, tmp_path: Path) -> None:
    import yaml

    from dse.workload.problem import problem_document

    (tmp_path / "problem.yaml").write_text(yaml.safe_dump(problem_document(small_case()["instance"])))
    mapping = FOLDER / "search" / "timeloop-mapper.map.yaml"
    code, out, err = run("model", SMALL / "arch.yaml", tmp_path / "problem.yaml", mapping, SMALL / "ert.yaml", "--json")
    assert (code, err) == (0, "")
    total = float(re.search(r"Total\s+= (\S+)", recorded("search").files["timeloop-mapper.stats.txt"])[1])
    found = json.loads(out)
    assert 1000 * found["energy_pj"] / found["computes"] == pytest.approx(total, abs=0.005001)


def test_no_part_of_a_file_passes_for_the_whole() -> None:
    whole = stats(MODEL_STATS)
    for length in range(0, len(MODEL_STATS) - 1, 61):
        try:
            assert stats(MODEL_STATS[:length]) == whole
        except InputError:
            continue


def test_energies_that_are_not_from_the_table_are_refused() -> None:
    text = recorded("built_in_energies").files["timeloop-model.stats.txt"]
    with pytest.raises(InputError, match=r"stats.txt: buffer: its energy comes from .*, not from the energy table"):
        stats(text)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"(?s)(=== local ===.*?Energy \(total\) +: )\S+", r"\g<1>99999.00", "add up"),
        (r"=== local ===", "=== global ===", "its parts add up to"),
        (r"(Scalar reads \(per-instance\) +: )\d+", r"\g<1>many", "'many' is 'many'|reads.*'many'"),
        (r"(Scalar fills \(per-instance\) +: )\d+", r"\g<1>-3", "'-3'"),
        (r"    Weights:", "    Biases:", "unknown tensor 'Biases'"),
        (r"Cycles: \d+", "Cycles: nan", "Cycles"),
    ],
)
def test_wrong_text_is_refused(pattern: Any, replacement: Any, message: Any) -> None:
    text, count = re.subn(pattern, replacement, MODEL_STATS, count=1)
    assert count == 1
    with pytest.raises(InputError, match=message):
        stats(text)
