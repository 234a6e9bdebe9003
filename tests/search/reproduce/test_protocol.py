"""Protocols: what is shipped fits together; what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import search.runs.config
from dse.core.errors import InputError
from search.reproduce.protocol import FIGURES, SCALES, load_protocol, shipped_protocol
from search.runs.config import load_config

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.mark.parametrize("scale", SCALES)
def test_every_shipped_run_is_shown_in_a_figure(scale: str) -> None:
    protocol = load_protocol(shipped_protocol(scale))
    shown = {name for figure in protocol.panels for name in protocol.needs(figure)}
    assert shown == set(protocol.runs)
    assert set(protocol.panels) <= set(FIGURES)


@pytest.mark.parametrize("scale", SCALES)
def test_networks_of_a_panel_are_comparable(scale: str) -> None:
    """The runs of a panel train the same network on the same data with the same seeds, or part of them."""
    protocol = load_protocol(shipped_protocol(scale))
    for panel in (panel for panels in protocol.panels.values() for panel in panels):
        base = protocol.runs[panel.baselines]
        assert len(base.baselines) > 1
        for name in panel.series.values():
            run = protocol.runs[name]
            assert (run.network, run.data, run.arch) == (base.network, base.data, base.arch)
            assert (run.pretrain, run.init, run.distill) == (base.pretrain, base.init, base.distill)
            assert run.pretrain is not None or run.relearn == base.relearn
            assert set(run.seeds) <= set(base.seeds)


def test_the_cifar_configuration_is_the_sensitivity_run_of_a_scale() -> None:
    file = Path(search.runs.config.__file__).parents[1] / "configs" / "cifar10_desk.yaml"
    run = load_protocol(shipped_protocol("pretrained")).runs["sensitivity"]
    assert load_config(file) == replace(run, name="cifar10_desk")


def test_a_run_has_its_own_fields_before_the_common_ones() -> None:
    protocol = load_protocol(TINY)
    assert protocol.runs["bilevel"].baselines == ("T8", "MF8", "BC8") and protocol.runs["sequential"].baselines == ()
    assert protocol.runs["bilevel"].name == "bilevel"
    assert protocol.needs("fig8") == ("bilevel", "sequential") and protocol.needs("fig4") == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "series: {bi-level: bilevel}",
            "series: {bi-level: bilvel}",
            "figures.fig5[0].series.bi-level: unknown run 'bilvel'",
        ),
        ("baselines: bilevel", "baselines: none", "figures.fig5[0].baselines: unknown run 'none'"),
        ("  fig5:", "  fig3:", "figures: unknown figure 'fig3'"),
        ("energy_budgets: [0.8]", "budget: 0.8", "runs.bilevel: unknown field 'budget'"),
        ("title: Tiny, ", "", "figures.fig5[0]: field 'title' is missing"),
        (
            "series: {sequential: sequential, ",
            "series: {cycles: sequential, ",
            "figures.fig6[0].series.sequential: found None (allowed: a run whose search.mode is sequential",
        ),
        ("stochastic: stochastic}}]", "stochastic: bilevel}}]", "figures.fig6[0].series.stochastic: found 'bilevel'"),
        (
            "  fig8: [{title: Tiny, baselines: bilevel, series: {bi-level: bilevel, sequential: sequential}}]",
            "  fig8: []",
            "figures.fig8: found []",
        ),
        ("common:", "comon:", "unknown field 'comon'"),
        ("epochs: 2, ", "epochs: 0, ", "runs.bilevel: search.epochs: found 0"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = TINY.read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        load_protocol(path)
    assert problem in str(refused.value) and "mine.yaml" in str(refused.value)
