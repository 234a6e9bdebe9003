"""The real Timeloop and Accelergy, driven: what they read, how they are run, what their output means."""
