"""The MAC core as hardware: operands, synthesis, cell libraries, gate-level activity and the energy of an operation."""
