"""The learning half of ENOS: differentiable search over operators and precisions against an energy table.

```python
from search import searchable

model = searchable(net, CostTable.load("table.csv"))
loss = task_loss(model(x), y) + 0.3 * model.energy()
chosen = model.discretise()
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.supernet import searchable

__all__ = ["searchable"]


def __getattr__(name: str) -> Any:
    """Imports torch only when `searchable` is asked for: commands of the other half start without it."""
    if name == "searchable":
        from search.supernet import searchable

        return searchable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
