"""The hardware: Timeloop v4 specifications and their reader, candidates, energies of components."""
