"""What is computed: problems, layers, workload files, and the layers of a torch module."""
