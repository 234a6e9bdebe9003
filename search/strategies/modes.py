"""The search modes, by the name a configuration gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search.strategies.bilevel import bilevel
from search.strategies.learner import Learner
from search.strategies.sensitivity import sensitivity
from search.strategies.sequential import sequential
from search.strategies.single_level import single_level
from search.strategies.stochastic import stochastic
from search.strategies.variational import variational
from search.training.checkpoint import Record

Strategy = Callable[[Learner[Any]], list[Record]]
"""Learns alpha and theta of the learner's network in place; returns its history, one record per epoch.

The network then holds the operator weights that assignments are made of.
"""

STRATEGIES: dict[str, Strategy] = {
    "single_level": single_level,
    "bilevel": bilevel,
    "sequential": sequential,
    "stochastic": stochastic,
    "variational": variational,
    "sensitivity": sensitivity,
}
