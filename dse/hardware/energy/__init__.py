"""Energies of components: tables of primitives, Accelergy's compound classes over them, energy reference tables."""
