"""The real Timeloop and Accelergy as an engine, where they are installed."""
