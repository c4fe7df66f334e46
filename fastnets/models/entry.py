"""What the registry knows of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fastnets.models.recipe import Recipe
from fastnets.models.transform import InputTransform


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One name of `create_model`.

    build: takes keywords only; those among dims, in_channels and num_classes that it lacks are fixed.
    parameters: learned parameters of the default configuration.
    dims: the spatial dimensions that it can have, the default first.
    reference: the implementation whose state_dict names, shapes and outputs it has.
    known_weights: where others' weights for it come from, and their licences.
    headline: its best-known result, and the source of the number.
    transform: what those weights expect to be done to a picture; its `size` is the input size.
    weights: a file in fastnets/models/pretrained, and `licence`, where that file comes from and its terms.
    recipe: how `predict` uses those weights.
    """

    name: str
    build: Callable[..., nn.Module]
    summary: str
    paper: str
    year: int
    parameters: int
    dims: tuple[int, ...]
    reference: str | None = None
    known_weights: str | None = None
    headline: str | None = None
    transform: InputTransform | None = None
    weights: str | None = None
    licence: str | None = None
    recipe: Recipe | None = None
