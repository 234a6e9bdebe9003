"""`docs/sampler.md`: its commands run, and its numbers are those of the committed results."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from search.sampling.macro import Macro
from search.sampling.measure import draw, measured
from search.sampling.mixture_file import read_mixture_file
from search.sampling.sampler import InMemory
from tests.docs.blocks import DOCS, ROOT, table
from tests.docs.runner import Runner
from tests.docs.test_pages import runner

__all__ = ["runner"]  # a fixture

PAGE = (DOCS / "sampler.md").read_text(encoding="utf-8")
STUDY = json.loads((ROOT / "results" / "sampler" / "study.json").read_text(encoding="utf-8"))


def test_the_page_of_the_sampler(runner: Runner) -> None:
    assert runner.page(DOCS / "sampler.md") == 12
    for file in ("sampled/samples.npz", "sampled/samples.png", "runs/noise/report.html"):
        assert (runner.folder / file).stat().st_size > 0


def test_the_page_names_every_attribute_with_its_default() -> None:
    rows = {row["attribute of macro"]: row["default"] for row in table(PAGE, "| attribute of `macro`")}
    fields = {field.name: field.default for field in dataclasses.fields(Macro)}
    assert list(rows) == sorted(fields, key=list(rows).index)
    for name, default in fields.items():
        assert default is None or rows[name] == f"{default:g}", name


def test_the_pages_distances_are_those_of_the_study() -> None:
    for row in table(PAGE, "| attribute | value: distance |"):
        points = {p["value"]: np.mean(p["wasserstein"]) for p in STUDY["points"][row["attribute"]]}
        for entry in row["value: distance"].split(", "):
            value, distance = map(float, entry.split(": "))
            assert points[value] == pytest.approx(distance, abs=0.5 * 10.0 ** -len(entry.rpartition(".")[2]) + 1e-9)
    assert round(float(np.mean(STUDY["ideal"]["wasserstein"])), 3) == 0.015


def test_the_committed_study_is_what_the_command_gives() -> None:
    job = read_mixture_file("two_modes")
    point = next(p for p in STUDY["points"]["adc_bits"] if p["value"] == 3)
    found = measured(draw(job.target, dataclasses.replace(job.macro, adc_bits=3), STUDY["samples"], STUDY["seeds"][0]))
    assert found["wasserstein"]["sliced"] == pytest.approx(point["wasserstein"][0], rel=0.2)
    few = measured(draw(job.target, dataclasses.replace(job.macro, chains=1), 500))
    assert min(few["effective_samples"]) == pytest.approx(45, abs=10)
    assert few["cost"]["energy_per_effective_sample_pj"] == pytest.approx(4, abs=1)


def test_the_pages_probabilities_are_what_the_macro_draws() -> None:
    import torch

    def shares(macro: Macro, weights: list[float]) -> np.ndarray:
        uniform = InMemory(macro).uniform(9 * 40_000, torch.Generator().manual_seed(1))
        noise = -(-uniform.log()).log().reshape(-1, 9)
        return np.bincount((torch.tensor(weights).log() + noise).argmax(1), minlength=9) / 40_000

    equal = shares(Macro(), [1 / 9] * 9)
    assert equal[0] == pytest.approx(0.116, abs=0.005) and equal[-1] == pytest.approx(0.108, abs=0.005)
    assert np.abs(equal - 1 / 9).max() < 0.008
    assert shares(Macro(random_correlation=0.5), [0.6, 0.3, *[0.1 / 7] * 7])[0] == pytest.approx(0.47, abs=0.01)
