"""Stochastic ENOS: Algorithm 3 of the paper, which samples a population of networks (Fig. 6b).

Step 1 is here, and the sampling of step 2. The networks are relearnt in stages of their own (`search.runs.stages`),
which run side by side, and step 3 takes the best on the validation set (`search.runs.results`).
"""

from __future__ import annotations

import torch

from search.objective import Regulariser
from search.sampling.sampler import EXACT, Sampler
from search.strategies.bilevel import bilevel
from search.strategies.learner import Learner
from search.strategies.settings import Stochastic
from search.supernet import SearchableNetwork
from search.training.checkpoint import Record


def stochastic(learner: Learner[Stochastic]) -> list[Record]:
    """Step 1: learns alpha, which are parameters of multinomial distributions, and theta by bi-level optimisation."""
    return bilevel(learner)


def population(model: SearchableNetwork, regulariser: Regulariser, samples: int, seed: int,
               sampler: Sampler = EXACT) -> list[dict[str, str]]:  # fmt: skip
    """Step 2: `samples` assignments drawn from softmax(alpha), within the budget if there is one; some may agree."""
    generator = torch.Generator().manual_seed(seed)
    return [regulariser.sample(model, generator, sampler) for _ in range(samples)]
