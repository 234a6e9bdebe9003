"""A CUDA device that does not exist: tensors of it are computed on the CPU, by the rules of a real one.

It finds what would fail or wait on a GPU: tensors of two devices in one operation, values read back to the host, memory
of the device read by numpy or by a kernel for the CPU, what a CUDA graph cannot capture. It says nothing about time,
memory, or the numbers of a GPU's own kernels.

    python -m tests.simulated_gpu -m pytest -m cuda tests/search
    python -m tests.simulated_gpu -m dse.cli run CONFIG --device cuda

runs any program with it. A process that has it keeps it, so tests start such programs as processes of their own.
"""
