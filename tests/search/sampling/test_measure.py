"""What is said of samples: errors grow with imperfections, costs follow the rule, notes name what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.core.errors import InputError
from search.sampling.cost import MC2RAM, iteration_cost
from search.sampling.figures import draw_samples, draw_study, draw_trace, marginal_info, plane_info, write_figure
from search.sampling.macro import Macro
from search.sampling.measure import draw, measured
from search.sampling.mixture import mixture
from search.sampling.mixture_file import read_mixture_file
from search.sampling.study import AXES, study
from tests.search.sampling.mixtures import TWO, random_mixture


def error(**attributes: Any) -> float:
    return float(measured(draw(TWO, Macro(**attributes), 60_000, seed=3))["wasserstein"]["sliced"])


def test_imperfect_bits_and_coarse_converters_make_the_samples_worse() -> None:
    good = error()
    assert good < 0.03
    for worse, worst in (
        ({"random_bias": 0.05}, {"random_bias": 0.2}),
        ({"random_correlation": 0.3}, {"random_correlation": 0.8}),
        ({"adc_bits": 3}, {"adc_bits": 1}),
        ({"dac_bits": 4}, {"dac_bits": 2}),
    ):
        assert 1.5 * good < error(**worse) < error(**worst)


def test_the_macro_is_within_the_statistical_error_of_the_exact_moments() -> None:
    found = measured(draw(TWO, Macro(dac_bits=10, adc_bits=8), 200_000, seed=0))
    apart = np.abs(np.array(found["mean"]) - found["mean_exact"])
    assert (apart < 4 * np.array(found["mean_error"])).all()
    assert np.allclose(found["covariance"], found["covariance_exact"], rtol=0.05, atol=0.05)
    assert found["wasserstein"]["sliced"] < 3 * found["wasserstein"]["exact_effective"]
    assert found["nearest_component"] == pytest.approx(found["nearest_component_exact"], abs=0.02)
    assert found["notes"] == []


def test_costs_are_the_published_ones_at_the_published_size_and_grow_with_columns() -> None:
    cost = measured(draw(TWO, Macro(chains=5, burn_in=7), 500))["cost"]
    assert cost["cycles"] == MC2RAM.cycles == 2000
    assert cost["power_w"] == pytest.approx(91e-6)
    assert cost["energy_pj"] == pytest.approx(91e-6 * 2e-6 * 1e12)
    assert cost["burn_in_cycles"] == 4 * 5 * 7
    assert cost["energy_per_effective_sample_pj"] >= cost["energy_per_sample_pj"]
    big = iteration_cost(8, 6)
    assert (big.cycles, big.energy_pj) == (4, pytest.approx(12 * 0.364))
    assert iteration_cost(8, 6, columns=10).cycles == 4 * 5


@pytest.mark.parametrize(("size", "dimensions"), [(1, 1), (6, 8)])
def test_samples_are_as_many_as_were_asked_for(size: int, dimensions: int) -> None:
    found = draw(random_mixture(size, dimensions, seed=0), Macro(chains=64), 1001)
    assert found.samples.shape == (1001, dimensions) and found.chains.shape == (16, 64, dimensions)
    assert measured(found)["samples"] == 1001
    assert measured(draw(found.target, Macro(), 1))["covariance"] is None


def test_notes_name_what_makes_samples_doubtful() -> None:
    far = mixture([0.9, 0.1], [[-300.0], [300.0]], [[[1.0]], [[1.0]]])
    notes = measured(draw(far, Macro(jumps=0.0, adc_bits=3), 5000))["notes"]
    starts = ["chains disagree (R-hat", "no chain moved", "the DAC's step is 2.4 standard", "the ADC's step is 1.5"]
    starts += ["the samples are"]
    assert [note.startswith(start) for note, start in zip(notes, starts, strict=True)] == [True] * 5
    assert "dac_bits=12" in notes[2]
    apart = mixture([0.5, 0.5], [[-1e9], [1e9]], [[[1.0]], [[1.0]]])
    assert any("16 dac_bits are not enough" in note for note in measured(draw(apart, Macro(), 100))["notes"])
    better = measured(draw(far, Macro(jumps=0.2, dac_bits=12), 200_000))
    assert better["notes"] == [] and better["nearest_component"][0] == pytest.approx(0.9, abs=0.01)


def test_figures_show_the_samples_and_the_exact_density(tmp_path: Path) -> None:
    found = draw(TWO, Macro(), 20_000)
    line = marginal_info(found, 0)
    width = np.diff(line.edges)
    assert (line.macro * width).sum() == pytest.approx(1) and (line.exact * width).sum() == pytest.approx(1, abs=1e-3)
    assert np.abs(line.macro - line.exact).max() < 0.25 * line.exact.max()
    plane = plane_info(found)
    inside = TWO.log_density(found.samples) > np.log(plane.levels[0])
    assert inside.mean() == pytest.approx(0.95, abs=0.02)  # the lowest contour holds 95 % of the samples
    other = draw(random_mixture(2, 1, seed=0), Macro(chains=1, dac_bits=1), 10)
    for i, figure in enumerate((draw_samples(found), draw_trace(found), draw_samples(other), draw_trace(other))):
        write_figure(figure, tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 5000


def test_the_study_has_every_value_and_an_ideal_sampler(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    found = study(TWO, Macro(chains=20, burn_in=20), samples=400, on_point=lambda *of: done.append(of))
    assert done[-1][0] == done[-1][1] == 1 + sum(map(len, found["points"].values()))
    assert [p["value"] for p in found["points"]["adc_bits"]] == list(AXES["adc_bits"])
    assert all(len(p["wasserstein"]) == 3 for points in found["points"].values() for p in points)
    write_figure(draw_study(found, {"adc_bits": 6}), tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 20_000


def test_a_mixture_file_is_read_with_its_macro(tmp_path: Path) -> None:
    file = tmp_path / "gmm.yaml"
    file.write_text("weights: [1]\nmeans: [[0, 1e-3]]\ncovariances: [[[1, 0], [0, 2]]]\nmacro: {adc_bits: 4}\n")
    job = read_mixture_file(file, ["random_bias=0.1", "adc_bits=null"])
    assert job.name == "gmm" and job.macro == replace(Macro(), random_bias=0.1)
    assert job.target.means.tolist() == [[0, 1e-3]]


WRONG = {
    "weights: [1]\nmeans: [[0]]\n": "gmm.yaml: field 'covariances' is missing",
    "weights: [1]\nmeans: [[0]]\ncovariances: [[[1]]]\nmakro: {}\n":
        "gmm.yaml: unknown field 'makro'; did you mean 'macro'?",
    "weights: [1]\nmeans: [[a]]\ncovariances: [[[1]]]\n": "gmm.yaml: means[0][0]: found 'a' (allowed: a number",
    "weights: [1]\nmeans: [[0]]\ncovariances: [[[1]]]\nmacro: {adc_bits: 0}\n":
        "gmm.yaml: macro.adc_bits: found 0 (allowed: a whole number from 1 to 16)",
    "weights: [1]\nmeans: [[0, 0]]\ncovariances: [[[1, 1], [1, 1]]]\n":
        "gmm.yaml: covariances[0]: is singular: the smallest eigenvalue",
    "weights: [0.5, 0.6]\nmeans: [[0], [1]]\ncovariances: [[[1]], [[1]]]\n": "gmm.yaml: weights: their sum is 1.1",
    "- 1\n": "gmm.yaml: found [1]",
    "weights: [1]\nmeans: [[0]]\ncovariances: [[[1]]]\nmacro: {random_bias: 0.2, random_correlation: -0.9}\n":
        "gmm.yaml: macro.random_correlation: found -0.9 with the bias 0.2",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_wrong_files_are_refused_in_one_line(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gmm.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_mixture_file("gmm.yaml")
    assert str(caught.value).startswith(WRONG[text])


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("none", (), "none: no such file (allowed: a file, two_modes)"),
        ("two_modes", ("adc_bits",), "--set adc_bits: expected ATTRIBUTE=VALUE"),
        ("two_modes", ("adc=1",), "unknown field 'adc'"),
    ],
)
def test_wrong_names_and_changes_are_refused(path: str, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_mixture_file(path, changes)
    assert message in str(caught.value)
