"""The learning half of ENOS: differentiable search over operators and precisions against an energy table.

```python
from search import searchable

model = searchable(net, CostTable.load("table.csv"))
loss = task_loss(model(x), y) + 0.3 * model.energy()
chosen = model.discretise()
```

The names below are the public interface; they are imported when they are first used, so that commands of the other half
start without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.export.integer_weights import integer_weights
    from search.export.qdq import write_onnx
    from search.objective import EnergyBudget, LatencyBudget
    from search.report.network_page import PageNetwork, write_network_page
    from search.sensitivity.own_loop import assignment_front, sensitivities
    from search.supernet import searchable

_PUBLIC = {
    "EnergyBudget": "search.objective",
    "LatencyBudget": "search.objective",
    "PageNetwork": "search.report.network_page",
    "assignment_front": "search.sensitivity.own_loop",
    "integer_weights": "search.export.integer_weights",
    "searchable": "search.supernet",
    "sensitivities": "search.sensitivity.own_loop",
    "write_network_page": "search.report.network_page",
    "write_onnx": "search.export.qdq",
}

__all__ = [
    "EnergyBudget",
    "LatencyBudget",
    "PageNetwork",
    "assignment_front",
    "integer_weights",
    "searchable",
    "sensitivities",
    "write_network_page",
    "write_onnx",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
