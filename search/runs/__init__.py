"""Runs: configuration, stages, workers, progress, results."""
