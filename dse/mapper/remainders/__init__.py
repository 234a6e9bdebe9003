"""Mappings whose factors do not divide the layer, searched as sums of products."""
