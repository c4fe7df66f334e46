"""Architectures, their weights, and how to feed them."""

from fastnets.models.entry import ModelEntry
from fastnets.models.inflate import inflate_weights
from fastnets.models.layout_registry import input_transform
from fastnets.models.registry import create_model, get_entry, list_models
from fastnets.models.slices import SliceBySlice
from fastnets.models.transform import InputTransform, prepare
from fastnets.models.views import OrthogonalViews, RandomViewAggregation
from fastnets.models.weights import load_weights

__all__ = [
    "InputTransform",
    "ModelEntry",
    "OrthogonalViews",
    "RandomViewAggregation",
    "SliceBySlice",
    "create_model",
    "get_entry",
    "inflate_weights",
    "input_transform",
    "list_models",
    "load_weights",
    "prepare",
]
