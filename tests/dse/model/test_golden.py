"""Every recorded Timeloop run, through `enos model`: counts are equal, energies to the last printed digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.cli import main
from dse.core.documents import read_yaml
from dse.hardware.energy.ert import read_ert, write_ert
from dse.workload.problem import problem_document

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted((GOLDEN / "cases").glob("*.json"))
IMPERFECT = sorted((GOLDEN / "imperfect").glob("*.json"))
COMPUTE_PJ = {
    "T": {8: 0.921875, 4: 0.328125, 2: 0.15625},
    "MF": {8: 0.1640625, 4: 0.125, 2: 0.109375},
    "BC": {8: 0.078125, 4: 0.0703125, 2: 0.0625},
}
COUNTS = ("tile", "instances", "reads", "fills", "updates")


def write_inputs(folder: Any, instance: Any, operator: Any, bits: Any) -> None:
    """Problem and energy table of a recorded run, as files."""
    problem = read_yaml(GOLDEN / "problem.yaml")
    if "Hdilation" in instance:
        problem = problem_document(instance)
    problem["problem"]["instance"] = instance
    (folder / "problem.yaml").write_text(yaml.safe_dump(problem, sort_keys=False))
    ert = read_ert(GOLDEN / "ert.yaml")
    write_ert(type(ert)({**ert.tables, "mac": {"compute": COMPUTE_PJ[operator][bits]}}), folder / "ert.yaml")


def variables(case: Any) -> Any:
    return [x for name in ("act_bits", "weight_bits", "psum_bits") for x in ("--var", f"{name}={case[name]}")]


@pytest.mark.parametrize("path", [*CASES, *IMPERFECT], ids=lambda p: p.stem)
def test_a_recorded_run(path: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = json.loads(path.read_text())
    write_inputs(tmp_path, case["instance"], case.get("operator", "T"), case.get("bits", 8))
    small = "operator" not in case  # recorded on the machine and with the energies beside it
    arch = (path.parent if small else GOLDEN) / "arch.yaml"
    if small:
        (tmp_path / "ert.yaml").write_text((path.parent / "ert.yaml").read_text())
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump({"mapping": case["mapping"]}))
    files = [str(tmp_path / name) for name in ("problem.yaml", "mapping.yaml", "ert.yaml")]
    with pytest.raises(SystemExit) as exit_:
        main(["model", str(arch), *files, *([] if small else variables(case)), "--count", "timeloop", "--json"])
    assert exit_.value.code == 0
    equals_recorded(json.loads(capsys.readouterr().out), case)


def equals_recorded(found: Any, case: Any) -> None:
    assert set(found["levels"]) == set(case["levels"])
    for level, tensors in case["levels"].items():
        if level == "mac":
            assert found["levels"]["mac"]["instances"] == tensors["instances"]
            assert found["levels"]["mac"]["energy_pj"] == pytest.approx(tensors["energy_pj"], rel=0, abs=0.005001)
            continue
        assert set(found["levels"][level]) == set(tensors)
        for tensor, recorded in tensors.items():
            ours = found["levels"][level][tensor]
            assert {k: ours[k] for k in COUNTS} == {k: recorded[k] for k in COUNTS}, (level, tensor)
            assert ours["energy_pj"] == pytest.approx(recorded["energy_pj"], rel=0, abs=0.005001), (level, tensor)
    assert found["cycles"] == case["cycles"]
    assert found["computes"] == case["computes"]
    assert f"{1000 * found['energy_pj'] / found['computes']:.2f}" == f"{case['fJ_per_compute']:.2f}"


def test_every_case_is_there() -> None:
    assert (len(CASES), len(IMPERFECT)) == (50, 43)


BASELINE = json.loads((GOLDEN / "mapper_baseline.json").read_text())
WIDTHS = {"T": lambda b: (b, b, 20), "MF": lambda b: (b, b, 12), "BC": lambda b: (b, 1, 12)}


@pytest.mark.parametrize("entry", BASELINE, ids=lambda e: f"{e['layer']}_{e['operator']}{e['bits']}")
def test_never_above_a_minute_of_timeloops_search(
    entry: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, entry["instance"], entry["operator"], entry["bits"])
    names = zip(("act_bits", "weight_bits", "psum_bits"), WIDTHS[entry["operator"]](entry["bits"]), strict=True)
    files = [str(tmp_path / name) for name in ("problem.yaml", "ert.yaml")]
    with pytest.raises(SystemExit) as exit_:
        main(["mapper", str(GOLDEN / "arch.yaml"), *files, *variables(dict(names)), "--perfect", "--json"])
    assert exit_.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["optimal"]
    assert 1000 * found["energy_pj"] / found["computes"] <= entry["fJ_per_compute"] + 0.005  # as it was printed
