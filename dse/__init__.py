"""The hardware half of ENOS: network -> layers -> optimal mappings -> energy table.

```python
from dse import export_network, map_workload

table = map_workload(export_network(network), arch="my_arch.yaml")
table.save("table.csv")
```

The names below are the public interface; they are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dse.core.errors import InputError
    from dse.hardware.candidates import load_candidates
    from dse.table.cost_table import CostTable
    from dse.table.fill import map_workload, stored_table
    from dse.workload.export import export_network
    from dse.workload.layers import Workload, read_workload, write_workload
    from dse.workload.networks import Network

__version__ = "0.1.0"

_PUBLIC = {
    "CostTable": "dse.table.cost_table",
    "InputError": "dse.core.errors",
    "Network": "dse.workload.networks",
    "Workload": "dse.workload.layers",
    "export_network": "dse.workload.export",
    "load_candidates": "dse.hardware.candidates",
    "map_workload": "dse.table.fill",
    "read_workload": "dse.workload.layers",
    "stored_table": "dse.table.fill",
    "write_workload": "dse.workload.layers",
}

__all__ = [
    "CostTable",
    "InputError",
    "Network",
    "Workload",
    "export_network",
    "load_candidates",
    "map_workload",
    "read_workload",
    "stored_table",
    "write_workload",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
