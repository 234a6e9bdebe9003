"""The access model: a mapping's loop nest, its exact access counts, energy and cycles."""
