"""Networks of mixed layers under torch.compile, torch.export, torch.jit.trace, checkpointing and DDP."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import io
import socket
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensor

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.quantisers import QuantiserName

CANDIDATES = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
LEARNED = LayerOptions("lsq", latent="own", learned_scales=True)


def network(candidates: Sequence[Candidate], options: LayerOptions | None = None, groups: int = 2) -> nn.Sequential:
    """Small, with a signed and an unsigned input, groups, padding that differs between sides, and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        MixedLayer(nn.Conv2d(3, 8, 4, padding="same"), candidates, options),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        MixedLayer(nn.Conv2d(8, 8, 3, padding=1, groups=groups, padding_mode="circular"), candidates, options),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        MixedLayer(nn.Linear(32, 5), candidates, options),
    )


def images(seed: int, n: int = 4) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def trained(candidates: Sequence[Candidate], options: LayerOptions | None = None) -> nn.Sequential:
    model = network(candidates, options)
    for seed in range(2):
        model(images(seed))
    return model.eval()


def by_name(*names: str) -> list[Candidate]:
    return [c for c in CANDIDATES if c.name in names]


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")

CASES = [(c.name, None) for c in CANDIDATES] + [("T4", LEARNED), ("MF4", LEARNED), ("DS4", LEARNED)]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_exported_network_computes_the_same(name: str, options: LayerOptions | None) -> None:
    model, x = trained(by_name(name), options), images(9, 6)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(model, (images(3),), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_traced_network_computes_the_same_after_it_is_saved(name: str, options: LayerOptions | None) -> None:
    model, x, file = trained(by_name(name), options), images(9, 6), io.BytesIO()
    torch.jit.save(torch.jit.trace(model, images(3)), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_mixture_can_be_exported() -> None:
    model, x = trained(CANDIDATES), images(9)
    exported = torch.export.export(model, (images(3),)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=1e-5, atol=1e-6)


def test_an_export_leaves_the_networks_state_as_it_is() -> None:
    model = trained(by_name("MF8")).train()
    before = copy.deepcopy(model.state_dict())
    torch.export.export(copy.deepcopy(model).eval(), (images(3) - 9,))
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if isinstance(value, Tensor))


@pytest.mark.parametrize("tool", [torch.export.export, torch.jit.trace])
def test_a_network_that_has_seen_no_input_is_not_exported(tool: Any) -> None:
    with pytest.raises(InputError, match="network: has not seen an input yet"):
        tool(network(by_name("T8")).eval(), (images(0),))


class _Refused(nn.Module):
    """A network that torch.export refuses behind its mixed layers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y if bool(y.sum() > 0) else -y


def cached_tensors(functions: Iterable[Any]) -> list[Tensor]:
    """Tensors that the caches of functions hold."""
    reached, found = list(functions), []
    for _ in range(5):  # of a cache, its dictionary, the links of its entries, their results
        reached = [
            x for y in reached for x in gc.get_referents(y) if not inspect.ismodule(x) and not inspect.isclass(x)
        ]
        found += [x for x in reached if isinstance(x, Tensor)]
        reached = [x for x in reached if not isinstance(x, Tensor) and not inspect.isfunction(x)]
    return found


def test_a_failed_export_leaves_no_stand_in_in_a_cache() -> None:
    """The fake tensors of a failed trace would be given to every network of the same widths afterwards."""
    model = _Refused(trained(by_name("T8", "T4", "MF8", "MF2", "BC4")))
    with pytest.raises(RuntimeError):
        torch.export.export(model, (images(0),))
    modules = [m for name, m in sys.modules.items() if name.startswith("search.layers.")]
    caches = {id(f): f for m in modules for f in vars(m).values() if hasattr(f, "cache_info")}
    assert len(caches) >= 3
    assert [t for t in cached_tensors(caches.values()) if isinstance(t, FakeTensor)] == []

    @functools.cache
    def holds(n: int) -> tuple[Tensor, int]:
        return torch.zeros(n), n

    holds(3)
    assert len(cached_tensors([holds])) == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("options", [None, LEARNED])
@pytest.mark.parametrize("names", [("T8",), tuple(c.name for c in CANDIDATES)])
def test_a_compiled_network_takes_the_same_steps(
    backend: str, options: LayerOptions | None, names: tuple[str, ...]
) -> None:
    torch._dynamo.reset()
    plain = network(by_name(*names), options)
    other = copy.deepcopy(plain)
    compiled = torch.compile(other, backend=backend)
    optimisers = [torch.optim.SGD(m.parameters(), 0.01) for m in (plain, other)]
    for seed in range(3):
        outputs = [m(images(seed)) for m in (plain, compiled)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
        for optimiser, output in zip(optimisers, outputs, strict=True):
            optimiser.zero_grad()
            output.square().sum().backward()
            optimiser.step()
        for p, q in zip(plain.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-6, atol=1e-7)
    other.eval(), plain.eval()
    torch.testing.assert_close(compiled(images(5)), plain(images(5)), rtol=1e-5, atol=1e-6)
    assert torch.equal(plain[3].scale.rms, other[3].scale.rms) and plain[3].scale.signed is other[3].scale.signed


def _process(rank: int, port: int, quantiser: QuantiserName, queue: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        model = network(by_name("T8", "MF4", "BC2"), LayerOptions(quantiser))
        if quantiser == "lsq":  # its steps begin before, so that they are the same in all processes
            model(images(rank).abs())
        parallel = nn.parallel.DistributedDataParallel(model)
        optimiser = torch.optim.SGD(parallel.parameters(), 0.01)
        signs = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(6):
                x = images(10 * step + rank)
                # Negative values come to the second process from the first batch on, to the first one from the fourth.
                optimiser.zero_grad()
                parallel(x if rank == 1 or step >= 3 else x.abs()).square().sum().backward()
                optimiser.step()
                signs.append([m.scale.signed for m in model if isinstance(m, MixedLayer)])
            parallel(images(99).abs())  # brings the buffers of the last step
        state = {k: v.tolist() for k, v in model.state_dict().items() if isinstance(v, Tensor)}
        queue.put((rank, signs, {k: v for k, v in state.items() if "running" not in k and "rms" not in k}))
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed training")
@pytest.mark.parametrize("quantiser", ["rms", "lsq"])
def test_processes_of_distributed_training_agree_on_signs(quantiser: QuantiserName) -> None:
    context = torch.multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = context.Queue()
    processes = [context.Process(target=_process, args=(rank, port, quantiser, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = {rank: rest for rank, *rest in (queue.get(timeout=120) for _ in processes)}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (signs, state), (others, other_state) = found[0], found[1]
    assert signs[1:] == others[1:]  # in the first step each process has its own batch only
    assert [step[0] for step in signs] == [False] * 4 + [True] * 2
    for name, value in state.items():
        assert value == other_state[name], name
