from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from search.data.catalogue import NAMES
from search.data.datasets import DATASETS, Augmentation, Normalisation, Split
from search.training.epochs import batches
from search.training.train import accuracy


def test_every_name_of_the_catalogue_has_a_reader() -> None:
    assert tuple(DATASETS) == NAMES


def test_a_configuration_is_read_without_torch() -> None:
    code = "import sys, search.runs.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


def test_augmentation_moves_each_image_by_itself_and_repeats_for_a_seed() -> None:
    image = torch.zeros(3000, 1, 8, 8)
    image[:, :, 3, 4] = 1
    moved, again = (Augmentation(2, True)(image, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(moved, again)
    assert moved.shape == image.shape and moved.is_contiguous() and torch.equal(moved.sum((1, 2, 3)), torch.ones(3000))
    where = {(int(y), int(x)) for _, _, y, x in moved.nonzero()}
    assert where == {(y, x) for y in range(1, 6) for x in range(1, 7)}
    still = Augmentation(0, False)(image, torch.Generator())
    assert torch.equal(still, image)


def test_bytes_are_shifted_as_floats_are() -> None:
    image = torch.randint(0, 256, (50, 3, 6, 6), dtype=torch.uint8)
    of_bytes, of_floats = (
        Augmentation(2, True)(x, torch.Generator().manual_seed(1)) for x in (image, image.to(torch.float32))
    )
    assert of_bytes.dtype == torch.uint8 and torch.equal(of_bytes.to(torch.float32), of_floats)


def test_normalisation_is_that_of_each_channel() -> None:
    images = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    split = Split(images, torch.tensor([0]), Normalisation((0.5, 0.2), (0.25, 0.4)))
    torch.testing.assert_close(split.prepared(split.images), torch.tensor([[[[-2.0]], [[2.0]]]]))
    plain = Split(torch.ones(1, 1, 1, 1), torch.tensor([0]))
    assert plain.prepared(plain.images) is plain.images


def test_networks_read_prepared_batches() -> None:
    """Training shifts bytes first, so that what is shifted in is black and not the mean."""
    images = torch.full((8, 1, 4, 4), 51, dtype=torch.uint8)
    split = Split(images, torch.zeros(8, dtype=torch.int64), Normalisation((0.2,), (0.5,)))
    (batch, _), *_ = batches(split, 8, seed=0, epoch=0, augmentation=Augmentation(2, False))
    assert {round(v, 4) for v in batch.flatten().tolist()} == {0.0, -0.4}
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.stack([x[:, 0, 0, 0] + 1, x[:, 0, 0, 0]], 1)

    module = torch.nn.Module()
    module.forward = network  # type: ignore[method-assign]
    assert accuracy(module, split) == 1.0
    assert seen[0].dtype == torch.float32 and seen[0].abs().max() < 1e-6
