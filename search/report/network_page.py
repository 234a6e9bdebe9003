"""The page of networks that were trained without a run, in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.page import page_data, render, write_page
from dse.table.cost_table import CostTable, Transmission
from search.costs import excluded_rows, reference_pj, share
from search.report.page_data import run_data
from search.report.run_page import best, findings, subtitle
from search.runs.results import Label, Point, with_gains
from search.training.measures import ACCURACY, Measure


@dataclass(frozen=True)
class PageNetwork:
    """A trained network as a page shows it. One with the same candidate in all layers counts as uniform.

    Attributes:
        name: what the page calls it; uniform networks are called by their candidate.
        assignment: layer of the cost table -> candidate.
        validation: its accuracy on validation images, 0 to 1, or the value of another measure. It decides which
            uniform network others are compared with.
        test: the same on test images.
        image_passes: number of images that it was trained with, each as often as it was used; None if it is not known.
        seed: networks are compared with uniform ones of the same seed.

    Example:
        >>> PageNetwork("budget 0.4", {"conv": "T8", "fc": "BC4"}, validation=0.91, test=0.9).seed
        0
    """

    name: str
    assignment: Mapping[str, str]
    validation: float
    test: float
    image_passes: int | None = None
    seed: int = 0


def write_network_page(
    path: Path | str,
    table: CostTable,
    networks: Sequence[PageNetwork],
    *,
    title: str = "ENOS",
    transmission: Transmission = "all",
    measure: Measure = ACCURACY,
    exclude: Sequence[str] = (),
) -> Path:
    """Writes the HTML page of networks: accuracy against energy, gains over uniform networks, layers and mappings.

    It is the page of a run (docs/report.md) without what only a search knows. Each network that is not uniform is
    compared with the uniform network of its seed that is best on the validation images at no more energy.

    Args:
        path: of the page.
        table: energies and mappings.
        networks: at least one.
        title: heading of the page.
        transmission: the memory levels whose energy counts, as for `searchable`.
        measure: what `validation` and `test` are, if not accuracies.
        exclude: layers that were left out of the search, as for `searchable`.

    Returns:
        The path.

    Raises:
        InputError: no networks; an assignment that does not fit the table; an accuracy that is not from 0 to 1; two
            networks of the same name and seed; the page cannot be written.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> t8, mixed = (dict.fromkeys(table.layers, "T8") for _ in range(2))
        >>> mixed["conv1"] = "T4"
        >>> networks = [PageNetwork("T8", t8, validation=0.93, test=0.92), PageNetwork("mine", mixed, 0.92, 0.92)]
        >>> write_network_page("networks.html", table, networks).name
        'networks.html'
    """
    if not networks:
        raise InputError("networks", "is empty", "at least one PageNetwork")
    left_out = excluded_rows(table, exclude)
    several = len({n.seed for n in networks}) > 1
    points: list[Point] = []
    for i, network in enumerate(networks):
        point = _point(network, table, transmission, measure, left_out, f"networks[{i}]")
        name = point.get("name", point.get("candidate"))
        if any((p.get("name", p.get("candidate")), p["seed"]) == (name, point["seed"]) for p in points):
            raise InputError(f"networks[{i}]", f"{name!r} of seed {network.seed} is there twice", "one of each")
        points.append(point if several else {**point, "alone": True})
    declared = [Label(c, str(r["operator"]), int(r["bits"]))
                for c, r in ((c, table.row(table.layers[0], c)) for c in table.candidates)]  # fmt: skip
    results: dict[str, Any] = {
        "networks": points,
        "populations": [],
        "candidates": list(map(asdict, declared)),
        "transmission": transmission,
        "unit_pj": reference_pj(table, transmission),
        **({"excluded": left_out} if left_out else {}),
        **({} if measure == ACCURACY else {"metric": asdict(measure)}),
    }
    results = with_gains(results, measure)
    found = results["networks"]
    data = page_data(table, transmission) | run_data(results, table, declared, best(found, measure))
    page = render(
        data | {"sweep": None},
        title=title,
        subtitle=subtitle(results, table),
        findings=findings(found, table, transmission, measure),
        commands="Python: search.write_network_page",
    )
    return write_page(Path(path), page)


def _point(network: PageNetwork, table: CostTable, transmission: Transmission, measure: Measure,
           left_out: Mapping[str, str], where: str) -> Point:  # fmt: skip
    """The network as results have it."""
    for name in ("validation", "test"):
        value = getattr(network, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise InputError(f"{where}.{name}", f"found {value!r}", "a finite number")
        if measure.percent and not 0 <= value <= 1:
            raise InputError(f"{where}.{name}", f"found {value!r}", f"{measure.name} as a share, from 0 to 1")
    assignment = dict(network.assignment)
    for layer in assignment:
        if layer not in table.layers:
            raise InputError(f"{where}.assignment", f"unknown layer {layer!r}", table.layers)
    try:
        energy = share(table, assignment, "energy", transmission)
    except InputError as e:
        raise e.at(f"{where}.{e.where}") from None
    if not energy < float("inf"):
        raise InputError(f"{where}.assignment", "has a candidate without mapping in some layer")
    free = {c for layer, c in assignment.items() if layer not in left_out}
    uniform = len(free) == 1
    point: Point = {
        "kind": "baseline" if uniform else "searched",
        "seed": network.seed,
        "energy": energy,
        "latency": share(table, assignment, "latency"),
        measure.key("validation"): float(network.validation),
        measure.key("test"): float(network.test),
        "assignment": assignment,
        **({"candidate": free.pop()} if uniform else {"name": network.name}),
    }
    return point if network.image_passes is None else {**point, "image_passes": network.image_passes}
