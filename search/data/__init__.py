"""Data sets: what can be named, official files, and readers of them."""
