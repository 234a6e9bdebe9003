"""The mapper against every mapping there is, on random small layers and accelerators: a hunt for a false proof.

Draws cases of `tests/dse/mapper/small_cases.py` by seed, tries every factorisation, order, use of the fan-outs and
choice of what is kept one by one, and compares with the mapper's answer. Prints each case that differs with its seed;
ends with exit code 1 if there is one. Cases with more mappings than --largest are drawn again and not counted.

usage: python benchmarks/optimality.py [--cases N] [--first SEED] [--largest MAPPINGS] [--show SEED]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dse.model.mapping import loop_nest
from tests.dse.mapper.brute_force import CompiledModel, cost, every_mapping, least_compiled, search_perfect
from tests.dse.mapper.small_cases import Case, Pick, draw_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--largest", type=int, default=20_000, help="mappings of a case at most")
    parser.add_argument("--show", type=int, help="prints the files of one case and how it comes out")
    options = parser.parse_args()
    if options.show is not None:
        _show(draw_case(Pick.seeded(options.show)), options.largest)
        return
    start, seed, tried, mappings = time.monotonic(), options.first, 0, 0
    outcomes: Counter[str] = Counter()
    while tried < options.cases:
        case = draw_case(Pick.seeded(seed))
        number, outcome = _difference(case, options.largest)
        if number <= options.largest:
            tried, mappings = tried + 1, mappings + number
            outcomes[outcome.split(":")[0]] += 1
            if outcome not in ("equal", "no mapping"):
                print(f"seed {seed}: {outcome}", flush=True)
            if tried % 1000 == 0:
                print(f"{tried} cases, {time.monotonic() - start:.0f} s, {dict(outcomes)}", file=sys.stderr, flush=True)
        seed += 1
    print(f"{tried} cases with {mappings:,} mappings (seeds {options.first} to {seed - 1}):")
    for outcome, count in outcomes.most_common():
        print(f"  {outcome}: {count}")
    sys.exit(any(name not in ("equal", "no mapping") for name in outcomes))


def _difference(case: Case, largest: int) -> tuple[int, str]:
    """How many mappings a case has, and how the mapper's answer compares with the best of them."""
    try:
        number, expected = least_compiled(case.spec, case.problem, case.ert, case.objective, largest)
    except AssertionError as e:
        return 0, f"model: {e}"
    if number > largest:
        return number, "too large"
    try:
        found = search_perfect(case.spec, case.problem, case.ert, case.objective)
    except Exception:
        return number, f"crash: {traceback.format_exc()}"
    if found.evaluation is None or expected is None:
        if found.evaluation is None and expected is None:
            return number, "no mapping" if found.reason else "no reason: the mapper gives none for having no mapping"
        return number, f"existence: found {found.evaluation and found.evaluation.energy_pj}, expected {expected}"
    got = cost(found.evaluation, case.objective)
    worse = got[0] / expected[0] if expected[0] else math.inf
    if abs(worse - 1) > 1e-9:
        return (
            number,
            f"{'worse' if worse > 1 else 'better'}: {case.objective} {worse:.6f} of the best, optimal {found.optimal}",
        )
    return number, "equal" if found.optimal else "unproven: equal, and not proven"


def _show(case: Case, largest: int) -> None:
    architecture, problem = case.documents
    for node in architecture["architecture"]["nodes"]:
        print(json.dumps(node))
    print(json.dumps(problem), json.dumps(dict(case.ert.tables)), case.objective, sep="\n")
    print(_difference(case, largest))
    model = CompiledModel(case.spec, case.problem, case.ert)
    costs = ((model.cost(m, case.objective), m) for m in every_mapping(case.spec, case.problem))
    best = min(((c, m) for c, m in costs if c is not None), key=lambda pair: pair[0], default=None)
    if best is not None:
        print("best", best[0], dict(best[1].keep), loop_nest(case.spec, best[1]), sep="\n")
    found = search_perfect(case.spec, case.problem, case.ert, case.objective)
    if found.mapping is not None and found.evaluation is not None:
        print("found", cost(found.evaluation, case.objective), dict(found.mapping.keep), sep="\n")
        print(loop_nest(case.spec, found.mapping))


if __name__ == "__main__":
    main()
