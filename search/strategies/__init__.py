"""The search modes, by the name a configuration gives them."""

from __future__ import annotations

from collections.abc import Callable

from search.checkpoint import Checkpoint, Record
from search.config import Search
from search.data import Dataset
from search.objective import Regulariser
from search.strategies.bilevel import bilevel
from search.supernet import SearchableNetwork
from search.train import OnEpoch

Strategy = Callable[[SearchableNetwork, Dataset, Search, Regulariser, int, Checkpoint, OnEpoch], list[Record]]
"""Learns a searchable network's alpha and theta in place.

Arguments: the network, the data, the settings, the energy's part of the loss, the seed, where progress is kept, and
what to call with each record, restored ones included. Returns one record an epoch, with at least epoch, loss,
validation_accuracy, energy (expected), lambda and seconds; the network then holds the operator weights, and its
`assignment()` is the result.
"""

STRATEGIES: dict[str, Strategy] = {"bilevel": bilevel}
