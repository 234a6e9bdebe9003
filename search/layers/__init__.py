"""The searchable layer: operators, quantisers, the fused form, and the integer reference of the MAC cores."""
