"""Mappings whose factors do not divide the layer."""
