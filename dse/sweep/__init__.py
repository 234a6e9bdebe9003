"""Architecture sweeps: a network mapped on every accelerator that some settings span.

```python
from dse.sweep import sweep

found = sweep("squeezenet", {"glb_ifmap.depth": "1024:65536:x2"}, only=["T8"])
found.best("T8")  # the row of least energy of `found.summary`
```
"""

from dse.sweep.run import sweep
from dse.sweep.sweep_table import SweepTable

__all__ = ["SweepTable", "sweep"]
