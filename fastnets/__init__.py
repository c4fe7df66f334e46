"""The classic image-analysis networks, run exactly and fast over whole slides and volumes."""

import torch  # noqa: F401  before _C, so that the process holds one libgomp: torch's

from fastnets.errors import InputError
from fastnets.models import create_model, list_models, load_weights
from fastnets.pipeline import predict, verify
from fastnets.tiling import infer, receptive_field, sliding_window_inference

__all__ = [
    "InputError",
    "create_model",
    "infer",
    "list_models",
    "load_weights",
    "predict",
    "receptive_field",
    "sliding_window_inference",
    "verify",
]
