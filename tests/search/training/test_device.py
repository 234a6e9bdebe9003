"""Training on a GPU, or on one that is simulated: all modes, what the host waits for, what is copied, checkpoints."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dse.hardware.candidate import Macro
from dse.hardware.candidates import load_candidates
from search.data.datasets import Augmentation, Dataset
from search.layers.in_memory.chips import Chip
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.mixed_product import MixedProduct
from search.objective import EnergyBudget
from search.strategies.bilevel import bilevel
from search.strategies.modes import STRATEGIES
from search.training.checkpoint import Checkpoint, Record
from search.training.chips import placed_on
from search.training.cuda_graphs import EAGER_STEPS, GraphedLoss
from search.training.epochs import Batch, Epoch, batches
from search.training.settings import Distillation, Training
from search.training.train import Compute, learn
from tests.search.strategies.helpers import DATA, ignore, make_learner, small_model

pytestmark = pytest.mark.cuda
CUDA = Compute("cuda", channels_last=True, graphs=True)


def data(images: int | None = None) -> Dataset:
    """On the device; of each set the first `images`."""
    few = [replace(s, images=s.images[:images], labels=s.labels[:images]) for s in (DATA.train, DATA.validation)]
    return replace(DATA, train=few[0], validation=few[1]).to("cuda")


@contextmanager
def waits() -> Iterator[list[str]]:
    """What the host waits for meanwhile, copies to the device included."""
    found: list[str] = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found += [str(w.message) for w in seen if "synchronizing" in str(w.message)]


@pytest.mark.parametrize("mode", list(STRATEGIES))
def test_every_mode_finds_on_a_gpu_what_it_finds_on_a_cpu(mode: str, tmp_path: Path) -> None:
    here = STRATEGIES[mode](make_learner(mode, tmp_path / "cpu.pt"))
    learner = make_learner(mode, tmp_path / "cuda.pt", compute=CUDA, data=data())
    there = STRATEGIES[mode](learner)
    assert {p.device.type for p in learner.model.parameters()} == {"cuda"}
    assert [r["loss"] for r in there] == pytest.approx([r["loss"] for r in here], rel=0.03)
    if mode != "sensitivity":  # which computes a step of each candidate
        assert isinstance(learner._loss, GraphedLoss) and learner._loss.refused is None


@pytest.mark.parametrize("mode", [mode for mode in STRATEGIES if mode != "sensitivity"])
def test_a_step_of_a_search_does_not_wait_for_the_device(mode: str, tmp_path: Path) -> None:
    learner = make_learner(mode, tmp_path / "x.pt", compute=CUDA, data=data(56), batch_size=8)
    counted: list[list[str]] = []
    plain = learner.batches

    def watched(epoch: Epoch) -> Iterator[Batch]:
        for i, batch in enumerate(plain(epoch)):
            if epoch.index < 2 or i <= EAGER_STEPS + 1:
                yield batch
                continue
            with waits() as found:
                yield batch
            counted.append(found)

    learner.batches = watched
    STRATEGIES[mode](learner)
    assert counted and isinstance(learner._loss, GraphedLoss) and learner._loss.captured
    assert not any(counted), counted


def test_a_budgets_correction_is_the_one_thing_that_a_step_waits_for(tmp_path: Path) -> None:
    """The multiplier follows the probabilities, which the host reads once for each update of alpha."""
    learner = make_learner("bilevel", tmp_path / "x.pt", compute=CUDA, data=data(56), batch_size=8)
    learner.regulariser = EnergyBudget(0.6)
    bilevel(learner)
    with waits() as found:
        learner.update_alpha(learner.loss(learner.held_out()))
    assert len(found) == 1 and ("_on_host" in found[0] or torch.cuda.get_device_name() != "simulated")


def test_a_network_learns_from_a_teacher_and_resumes_on_a_gpu(tmp_path: Path) -> None:
    """A checkpoint of a GPU is read on a CPU and back; a resumed training finds what an uninterrupted one finds."""
    settings = Training(epochs=3, batch_size=20, lr=0.02)
    compute = replace(CUDA, amp=True, distil=Distillation())

    def network(candidate: str) -> nn.Module:
        return small_model().discretise(dict.fromkeys(("conv", "fc"), candidate))

    class StoppedError(Exception):
        pass

    def stop(record: Record) -> None:
        if record["epoch"] == 2:
            raise StoppedError

    teacher = network("T8")
    compute.place(teacher)
    teacher(data().train.images[:20])
    whole = learn(network("T4"), data(), settings, 0, Checkpoint(tmp_path / "a.pt"), ignore, compute, teacher)
    with pytest.raises(StoppedError):
        learn(network("T4"), data(), settings, 0, Checkpoint(tmp_path / "b.pt"), stop, compute, teacher)
    resumed = learn(network("T4"), data(), settings, 0, Checkpoint(tmp_path / "b.pt"), ignore, compute, teacher)
    assert [{**r, "seconds": 0} for r in resumed] == [{**r, "seconds": 0} for r in whole]


def test_augmented_images_are_those_of_the_cpu() -> None:
    """All is drawn on the host, so that a run's batches do not depend on the device."""
    augmented = Augmentation(shift=2, flip=True)
    here, there = (list(batches(d.train, 20, 3, 1, augmented)) for d in (DATA, data()))
    for (images, labels), (others, other_labels) in zip(here, there, strict=True):
        assert others.device.type == "cuda"
        assert torch.equal(images, others.cpu()) and torch.equal(labels, other_labels.cpu())


def both(module: nn.Module, x: Tensor) -> list[list[Tensor]]:
    """Output, gradients and the output in evaluation of a module: on the CPU and on the GPU."""
    found = []
    for device in ("cpu", "cuda"):
        copied = copy.deepcopy(module)
        Compute(device).place(copied)
        y = copied(x.to(device))
        gradients = torch.autograd.grad(y.square().sum(), list(copied.parameters()), allow_unused=True)
        copied.eval()
        with torch.no_grad():
            values = [y.detach(), *(g for g in gradients if g is not None), copied(x.to(device))]
        found.append([v.cpu() for v in values])
    return found


@pytest.mark.parametrize("operators", ["operators", "operators_extended"])
@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
@pytest.mark.parametrize("latent", ["shared", "own"])
def test_layers_of_every_option_find_what_they_find_on_a_cpu(operators: str, quantiser: str, latent: str) -> None:
    torch.manual_seed(0)
    options = LayerOptions(quantiser, latent, learned_scales=latent == "own")
    candidates = load_candidates(operators)
    for module, shape in ((nn.Conv2d(4, 6, 3), (8, 4, 4, 4)), (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 4, 4)),
                          (nn.Conv1d(4, 6, 3, groups=2), (8, 4, 9)), (nn.Linear(4, 6), (8, 3, 4))):  # fmt: skip
        here, there = both(MixedLayer(module, candidates, options), torch.randn(shape))
        for a, b in zip(here, there, strict=True):
            assert (
                a - b
            ).norm() <= 1e-3 * a.norm() + 1e-6  # a value at the edge between two words may round either way


def test_a_product_of_two_activations_finds_what_it_finds_on_a_cpu() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
            self.product = MixedProduct([c for c in load_candidates() if c.operator == "typical"])

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.product(lambda q, k: q @ k.mT, self.query(x), self.key(x))
            return found

    torch.manual_seed(0)
    here, there = both(Attention(), torch.randn(2, 5, 8))
    for a, b in zip(here, there, strict=True):
        assert (a - b).norm() <= 0.02 * a.norm() + 1e-6


def test_layers_in_memory_measure_their_conversions_and_chips_on_a_gpu() -> None:
    torch.manual_seed(0)
    by_name = {c.name: c for c in load_candidates("operators_extended")}
    candidates = [replace(by_name[name], mode="cim", macro=Macro(31, 4, 31)) for name in ("T8", "MF8", "BC4")]
    layer, x, found = MixedLayer(nn.Conv2d(4, 6, 3), candidates), torch.randn(8, 4, 6, 6), []
    for device in ("cpu", "cuda"):
        copied = copy.deepcopy(layer).to(device)
        with torch.no_grad():
            copied(x.to(device))
            decided = nn.Sequential(copied.single(candidates[0])).eval()
            values = [copied.eval()(x.to(device)), decided(x.to(device))]
            with placed_on(decided, Chip(0, 0.05, 0.5)):
                values.append(decided(x.to(device)))
        assert values[-1].device.type == device
        found.append([v.cpu() for v in values])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 0.02 * a.norm()
    assert not torch.equal(found[0][1], found[0][2])
