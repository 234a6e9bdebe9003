from __future__ import annotations

import numpy as np
import pytest
import torch

from search.data.bundled import FILE
from search.data.datasets import digits


def test_the_shipped_digits_are_those_of_scikit_learn() -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    images, labels = load_digits(return_X_y=True)
    with np.load(FILE) as arrays:
        assert np.array_equal(arrays["images"].reshape(-1, 64), images)
        assert np.array_equal(arrays["labels"], labels)


def test_digits_are_split_by_class_without_overlap() -> None:
    data = digits(seed=3)
    assert data.image_shape == (1, 8, 8) and data.classes == 10
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    for split in (data.train, data.validation, data.test):
        assert (split.labels.bincount(minlength=10) / len(split)).sub(0.1).abs().max() < 0.02
        assert split.images.min() >= 0 and split.images.max() <= 1
    rows = torch.cat([s.images.flatten(1) for s in (data.train, data.validation, data.test)])
    assert len(rows.unique(dim=0)) == 1797


def test_the_seed_alone_decides_the_split() -> None:
    assert torch.equal(digits(seed=1).test.images, digits(seed=1).test.images)
    assert not torch.equal(digits(seed=1).test.labels, digits(seed=2).test.labels)


def test_a_subset_keeps_all_classes() -> None:
    data = digits(subset=200)
    assert (len(data.train), len(data.validation), len(data.test)) == (100, 40, 60)
    assert len(data.validation.labels.unique()) == 10


def test_more_images_can_be_held_out_for_choices() -> None:
    data, usual = digits(validation=0.5), digits()
    assert abs(len(data.train) - len(data.validation)) <= 10 and len(data.train) + len(data.validation) == 1258
    assert len(data.test) == len(usual.test) and len(data.validation) > len(usual.validation)
