"""Architectures, their weights, and how to feed them."""
