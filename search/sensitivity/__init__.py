"""Sensitivities: how the loss changes when one layer alone has another candidate, and the assignments that follow."""
