"""`--count`: what Timeloop's conventions leave out, beside the ordinary numbers of a mapping or a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dse.cli.common import uj
from dse.core.errors import InputError, did_you_mean
from dse.core.text import text_table
from dse.model.uncounted import KINDS, Changes, energy_of, uncounted

if TYPE_CHECKING:
    from dse.hardware.energy.ert import Ert
    from dse.hardware.spec import Spec
    from dse.model.evaluation import Evaluation
    from dse.model.mapping import Mapping as LoopMapping
    from dse.table.totals import Total
    from dse.workload.problem import Problem

_Function = TypeVar("_Function", bound=Callable[..., Any])

COUNTS = ("timeloop", "physical")
"""How mappings with remainders are counted; of all others both are the same."""

Extra = dict[str, Changes]
"""By kind, in the order in which the kinds are asked for."""


def count_option(*ways: str, help: str = "") -> Callable[[_Function], _Function]:
    """The function gets `count`, the names that are given, none without the option.

    Args:
        ways: names of which one may be given beside `dse.model.uncounted.KINDS`.
        help: says what these are.
    """
    allowed = (*ways, *KINDS)

    def read(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...]:
        names = () if value is None else tuple(name.strip() for name in value.split(","))
        for i, name in enumerate(names):
            if name not in allowed:
                raise InputError("--count", f"found {name[:80]!r}{did_you_mean(name, allowed)}", ", ".join(allowed))
            if name in names[:i]:
                raise InputError("--count", f"{name} is given twice", "each once")
        if sum(name in ways for name in names) > 1:
            raise InputError("--count", f"{' and '.join(ways)} exclude each other", "one of them")
        return names

    beside = "Count, beside the ordinary numbers: drain, reads of outputs that leave a memory; padding, without zeros."
    return click.option(
        "--count", metavar=",".join(allowed), callback=read, help=" ".join(filter(None, (help, beside)))
    )


def extra_of(
    spec: Spec,
    problem: Problem,
    mapping: LoopMapping,
    ert: Ert,
    evaluation: Evaluation,
    count: Sequence[str],
    *,
    timeloop: bool,
) -> Extra:
    """What is asked for of a mapping; arguments as in `dse.model.uncounted.uncounted`."""
    return {
        kind: uncounted(spec, problem, mapping, ert, evaluation, kind, timeloop=timeloop)
        for kind in count
        if kind in KINDS
    }


def counted_document(evaluation: Evaluation, extra: Extra) -> dict[str, Any]:
    """The changes as JSON data, and the energy with all of them; nothing where nothing is asked for."""
    if not extra:
        return {}
    kinds = {
        kind: {
            "energy_pj": energy_of(changes),
            "levels": {level: {t: vars(change) for t, change in of.items()} for level, of in changes.items()},
        }
        for kind, changes in extra.items()
    }
    return {"counted": {**kinds, "with_all_pj": evaluation.energy_pj + sum(map(energy_of, extra.values()))}}


def counted_lines(evaluation: Evaluation, extra: Extra) -> list[str]:
    """The changes by level and tensor as a table, and the energy with all of them."""
    if not extra:
        return []
    found = [
        (kind, f"{level} {tensor}", change)
        for kind, changes in extra.items()
        for level, tensors in changes.items()
        for tensor, change in tensors.items()
    ]
    lines = []
    if found:
        *energies, _ = uj([*(change.energy_pj for *_, change in found), evaluation.energy_pj])
        rows = [[kind, name, f"{change.reads:+d}", signed(energy)]
                for (kind, name, change), energy in zip(found, energies, strict=True)]  # fmt: skip
        header = ["counted", "level", "reads per\ninstance", "energy\nuJ"]
        lines += ["", text_table(header, rows)]
    more = sum(map(energy_of, extra.values()))
    (total,) = uj([evaluation.energy_pj + more])
    share = more / evaluation.energy_pj if evaluation.energy_pj else 0.0
    lines.append(f"Energy with {' and '.join(extra)} counted: {total} uJ ({share:+.1%}; cycles are the same)")
    return lines


def network_counted_lines(totals: Sequence[Total], changes: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """The energies of uniform networks with what is asked for, and an empty line; nothing where nothing is."""
    if not changes:
        return []
    kinds = list(next(iter(changes.values())))
    rows: list[list[float | None]] = []
    for total in totals:
        more = [changes.get(total.candidate, dict.fromkeys(kinds, 0.0))[kind] for kind in kinds]
        parts = [total.compute_pj, total.transmission_pj, *more]
        known = [part for part in parts if part is not None]
        ordinary = None if len(known) < len(parts) else sum(known[:2])
        rows.append([ordinary, *more, None if ordinary is None else sum(known)])
    texts = iter(uj([energy for row in rows for energy in row]))
    cells = []
    for total, (ordinary, *_, with_all) in zip(totals, rows, strict=True):
        first, *more_texts, last = (next(texts) for _ in range(len(kinds) + 2))
        share = "-" if not ordinary or with_all is None else f"{with_all / ordinary - 1:+.1%}"
        cells.append([f"all {total.candidate}", first, *map(signed, more_texts), last, share])
    lines = ["What Timeloop's conventions leave out, uJ; cycles and all other numbers are without it:"]
    return [*lines, text_table(["", "energy", *kinds, "with all", "change"], cells), ""]


def signed(text: str) -> str:
    """A number as text, with its sign."""
    return text if text.startswith("-") else f"+{text}"
