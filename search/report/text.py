"""What a run's results say beside accuracies and energies, as text.

Its data set, latencies, the cycles of sequential searches (Fig. 6a of the paper), populations (Fig. 6b), Pareto sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.core.text import text_table
from search.runs.results import NO_UNIFORM, Point, better_throughout, setting, unequal_passes
from search.training.measures import ACCURACY, Measure, measure_of


def details(results: Mapping[str, Any]) -> list[str]:
    """The data set, single candidates that did better, latencies where they differ, cycles, populations, Pareto sets.

    The Pareto set is that of several searches a seed.
    """
    measure = measure_of(results)
    found = [data_line(results["data"])]
    if left_out := results.get("excluded"):
        (counted,) = set(left_out.values())
        found.append(
            f"note: left out of the search, in floating point, and counted as {counted}: {', '.join(left_out)}"
        )
    searched = [p for p in results["networks"] if p["kind"] == "searched"]
    for name in dict.fromkeys(map(setting, searched)):
        own = [p for p in searched if setting(p) == name]
        if all(p.get("gain_reason") == NO_UNIFORM for p in own):
            found.append(f"note: nothing is said of the gain of what was searched with {name}: {NO_UNIFORM}")
        if passes := unequal_passes(own, results["networks"]):
            found.append(f"note: {name}: {passes}")
        if better := better_throughout(own, results["networks"], measure):
            found.append(f"note: all {' and all '.join(better)} cost no more than what was searched with {name}, "
                         "and did better on the validation images")  # fmt: skip
    if any(abs(p["latency"] - 1) > 1e-9 for p in results["networks"]):
        found.append(f"\nLatency: cycles, as shares of the all-typical 8-bit network's:\n{latency_table(results)}")
    if table := chip_table(results):
        found.append(f"\n{chips_line(results)}:\n{table}")
    found += [
        f"\nCycles of seed {p['seed']}, {setting(p)}:\n{cycle_table(p)}" for p in results["networks"] if "cycles" in p
    ]
    for population in results["populations"]:
        title = f"Population of seed {population['seed']}, {setting(population)}"
        found.append(f"\n{title}; * is best on the validation images:\n{population_table(population, measure)}")
    found += sampling_lines(results)
    if len({setting(p) for p in results["networks"] if p["kind"] == "searched"}) > 1:
        found.append(f"\nPareto set (energy, validation {measure.name}) of each seed:\n{pareto_table(results)}")
    return found


def sampling_lines(results: Mapping[str, Any]) -> list[str]:
    """What each search drew inside SRAM, and its energy beside that of the all-typical 8-bit network."""
    return [
        f"Sampling by {s['sampler']}, {setting(s)}, seed {s['seed']}: {s['numbers']:,} numbers in {s['iterations']:,} "
        f"iterations, {s['cycles']:,.0f} cycles, {s['energy_pj'] * 1e-3:.4g} nJ, as much as "
        f"{s['energy_pj'] / results['unit_pj']:.3g} inferences of the all-typical 8-bit network"
        for s in results.get("sampling", [])
    ]


def data_line(data: Mapping[str, Any]) -> str:
    """Name and sizes of the data set; what its notice says."""
    sizes = " / ".join(f"{data[split]:,}" for split in ("train", "validation", "test"))
    subset = "" if data["subset"] is None else f", subset {data['subset']:,}"
    line = f"Data: {data['name']}, {sizes} images for training / validation / test{subset}"
    return line if data["notice"] is None else f"{line}\nnote: {data['notice']}"


def chips_line(results: Mapping[str, Any]) -> str:
    """Number and variations of the simulated chips."""
    chips = results["chips"]
    images = chips.get("calibration", 0)  # runs of before have none
    return (
        f"Test images over {chips['number']} simulated chips, with a mismatch of cells of {chips['mismatch']:.1%} and "
        f"offsets of ADCs of {chips['offset']:g} codes (standard deviations)"
        + (f", each calibrated with {images} training images" if images else "")
    )


def chip_table(results: Mapping[str, Any]) -> str:
    """A row for each network that was tested on simulated chips; empty if there is none."""
    measure = measure_of(results)
    rows = [
        [
            f"all {p['candidate']}" if p["kind"] == "baseline" else f"searched, {setting(p)}",
            str(p["seed"]),
            measure.text(measure.of(p, "test")),
            *(measure.text(p["chips"][name]) for name in ("mean", "deviation", "worst")),
        ]
        for p in results["networks"]
        if "chips" in p
    ]
    return text_table(("network", "seed", "no variations", "mean", "deviation", "worst"), rows) if rows else ""


def latency_table(results: Mapping[str, Any]) -> str:
    """A row a network: expected cycles when its search ended, and cycles of the network that was trained."""
    rows = [
        [
            f"all {p['candidate']}" if p["kind"] == "baseline" else f"searched, {setting(p)}",
            str(p["seed"]),
            f"{p['latency_expected']:.3f}" if "latency_expected" in p else "",
            f"{p['latency']:.3f}",
        ]
        for p in results["networks"]
    ]
    return text_table(("network", "seed", "expected", "discretised"), rows)


def cycle_table(point: Point) -> str:
    """A row a cycle: which layer was assigned what, and the softmax weight that decided it."""
    rows = [[str(c["cycle"]), c["layer"], c["candidate"], f"{c['weight']:.3f}"] for c in point["cycles"]]
    return text_table(("cycle", "layer", "candidate", "weight"), rows)


def population_table(population: Mapping[str, Any], measure: Measure = ACCURACY) -> str:
    """A column a distinct network, under the sample it was drawn as first: how often, its figures, its candidates."""
    networks: list[Point] = population["networks"]
    head = [f"{p['sample']}{'*' if p['sample'] == population['selected'] else ''}" for p in networks]
    rows = [
        ["drawn", *(str(p["count"]) for p in networks)],
        ["energy", *(f"{p['energy']:.3f}" for p in networks)],
        ["validation", *(measure.text(measure.of(p, "validation")) for p in networks)],
        ["test", *(measure.text(measure.of(p, "test")) for p in networks)],
        *([layer, *(p["assignment"][layer] for p in networks)] for layer in networks[0]["assignment"]),
    ]
    return text_table(("sample", *head), rows)


def pareto_table(results: Mapping[str, Any]) -> str:
    """A row a network of the Pareto set."""
    measure = measure_of(results)
    rows = [
        [
            str(p["seed"]),
            setting(p),
            "" if p["sample"] is None else str(p["sample"]),
            f"{p['energy']:.3f}",
            measure.text(measure.of(p, "validation")),
            measure.text(measure.of(p, "test")),
        ]
        for p in results["pareto"]
    ]
    return text_table(("seed", "search", "sample", "energy", "validation", "test"), rows)
