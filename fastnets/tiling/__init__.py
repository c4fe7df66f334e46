"""Exact tiling: what a tile must read, in which order tiles run, and how their results are joined."""

from .analysis import Inexact, ReceptiveField, receptive_field
from .infer import infer
from .sliding_labels import sliding_window_labels
from .sliding_window import sliding_window_inference

__all__ = [
    "Inexact",
    "ReceptiveField",
    "infer",
    "receptive_field",
    "sliding_window_inference",
    "sliding_window_labels",
]
