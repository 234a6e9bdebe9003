"""Architecture sweeps: a network mapped onto every accelerator in a set of settings.

```python
from dse.sweep import sweep

result = sweep("squeezenet", {"glb_ifmap.depth": "1024:65536:x2"}, only=["T8"])
result.best("T8")  # the row of `result.summary` with the least energy
```
"""

from dse.sweep.run import sweep
from dse.sweep.sweep_table import SweepTable

__all__ = ["SweepTable", "sweep"]
