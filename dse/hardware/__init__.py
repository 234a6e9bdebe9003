"""What computes it: Timeloop v4 specifications and their reader, candidates, energies of components."""
