"""Figures of tables and sweeps: for each, a function that computes its content and one that draws it."""
