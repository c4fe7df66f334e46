"""Architectures, their weights, and how to feed them."""

from fastnets.models.entry import ModelEntry
from fastnets.models.registry import create_model, get_entry, list_models
from fastnets.models.weights import load_weights

__all__ = ["ModelEntry", "create_model", "get_entry", "list_models", "load_weights"]
