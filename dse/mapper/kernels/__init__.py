"""The compiled part of the mapper; the key of the compile cache is these files."""
