"""The search with remainders against every mapping there is, on random small layers and accelerators.

Draws cases of `tests/dse/mapper/small_cases.py` by seed, all with blocks of one word, tries every mapping with and
without remainders one by one, and compares with the mapper's answer. Prints each case that differs with its seed, and
how many came out how; ends with exit code 1 if an answer that is called optimal is not. Cases with more mappings than
--largest are drawn again and not counted.

usage: python benchmarks/remainders.py [--cases N] [--first SEED] [--largest MAPPINGS]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.dse.mapper.brute_force_remainders import FINE, compare
from tests.dse.mapper.small_cases import Pick, draw_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--largest", type=int, default=4000, help="mappings of a case at most")
    options = parser.parse_args()
    start, seed, tried, mappings = time.monotonic(), options.first, 0, 0
    outcomes: Counter[str] = Counter()
    while tried < options.cases:
        number, outcome = compare(draw_case(Pick.seeded(seed)), options.largest)
        if outcome != "too large":
            tried, mappings = tried + 1, mappings + number
            outcomes[outcome.split(":")[0]] += 1
            if outcome not in FINE:
                print(f"seed {seed}: {outcome}", flush=True)
            if tried % 200 == 0:
                print(f"{tried} cases, {time.monotonic() - start:.0f} s, {dict(outcomes)}", file=sys.stderr, flush=True)
        seed += 1
    print(f"{tried} cases with {mappings:,} mappings (seeds {options.first} to {seed - 1}):")
    for outcome, count in outcomes.most_common():
        print(f"  {outcome}: {count}")
    sys.exit(any(name not in FINE and not name.startswith("unproven") for name in outcomes))


if __name__ == "__main__":
    main()
