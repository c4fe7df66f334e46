"""From image files to label maps: what `fastnets predict` and `fastnets verify` do."""

from .predict import Prediction, predict
from .verify import Verification, verify

__all__ = ["Prediction", "Verification", "predict", "verify"]
