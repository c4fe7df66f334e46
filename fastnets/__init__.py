"""The classic image-analysis networks, run exactly and fast over whole slides and volumes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnets.engine.module import Optimized, optimize
    from fastnets.errors import InputError
    from fastnets.models import create_model, list_models, load_weights
    from fastnets.pipeline.predict import predict
    from fastnets.pipeline.verify import verify
    from fastnets.tiling.analysis import receptive_field
    from fastnets.tiling.infer import infer
    from fastnets.tiling.sliding_window import sliding_window_inference

__all__ = [
    "InputError",
    "Optimized",
    "create_model",
    "infer",
    "list_models",
    "load_weights",
    "optimize",
    "predict",
    "receptive_field",
    "sliding_window_inference",
    "verify",
]

_HOME = {
    "engine": ("Optimized", "optimize"),
    "errors": ("InputError",),
    "models": ("create_model", "list_models", "load_weights"),
    "pipeline": ("predict", "verify"),
    "tiling": ("infer", "receptive_field", "sliding_window_inference"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports on first use: `fastnets --help` answers in 0.2 s, and torch takes 1.5."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fastnets' has no attribute {name!r}")
    return getattr(import_module(f"fastnets.{_MODULE_OF[name]}"), name)
