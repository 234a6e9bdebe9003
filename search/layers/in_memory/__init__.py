"""Layers in compute-in-memory arrays: bit planes, conversions by an ADC, chips with variations, training with them."""
