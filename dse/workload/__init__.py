"""The computation: problems, layers, workload files, and the layers of a torch module."""
