"""Figures of tables and sweeps: a function that decides what is shown, and one that draws it."""
