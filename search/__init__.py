"""The learning half of ENOS: differentiable search over operators and precisions against an energy table."""
