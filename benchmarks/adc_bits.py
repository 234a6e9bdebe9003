"""Draws accuracy and energy against the bits of the ADC, from a run whose modes are macros with other ADCs.

usage: python benchmarks/adc_bits.py RESULTS.json PICTURE.png

Modes named ``adcN`` have N bits; those of other names are left out. Points are seeds, lines their means.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

_COLOURS = {"T": "#2f6db5", "MF": "#d9822b", "BC": "#2e8b57"}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"{(__doc__ or '').split('usage: ')[1].splitlines()[0]}")
    results, picture = map(Path, sys.argv[1:])
    of: dict[str, dict[int, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for network in json.loads(results.read_text())["networks"]:
        found = re.fullmatch(r"([A-Z]+\d)@adc(\d+)", network.get("candidate") or "")
        if found:
            values = {"test": 100 * network["test_accuracy"], "energy": network["energy"]}
            chips = {"chips": 100 * network["chips"]["mean"]} if "chips" in network else {}
            of[found[1]][int(found[2])].append(values | chips)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, by_bits in of.items():
        colour, bits = _COLOURS[re.sub(r"\d", "", name)], sorted(by_bits)
        for axes, key, style, label in (
            (left, "test", "-", name),
            (left, "chips", ":", None),
            (right, "energy", "-", name),
        ):
            means = [mean(v[key] for v in by_bits[b]) for b in bits if all(key in v for v in by_bits[b])]
            if len(means) == len(bits):
                axes.plot(bits, means, style, color=colour, label=label, linewidth=1.8)
        left.plot([b for b in bits for _ in by_bits[b]], [v["test"] for b in bits for v in by_bits[b]], "o",
                  color=colour, alpha=0.5, markersize=4)  # fmt: skip
    left.plot([], [], ":", color="grey", label="calibrated chips")
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("energy / all T8")
    for axes in (left, right):
        axes.set_xlabel("bits of the ADC")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.savefig(picture, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
