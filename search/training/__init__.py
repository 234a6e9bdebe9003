"""The training that searches and fixed networks share: epochs, checkpoints, CUDA graphs."""
