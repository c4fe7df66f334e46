"""Models by name. A new architecture adds its own file and one entry of _FAMILIES."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from fastnets.engine import Optimized
from fastnets.errors import InputError
from fastnets.models import (
    alexnet,
    brain_unet3d,
    cam_networks,
    densenet,
    efficientnet,
    googlenet,
    inception,
    inception_resnet,
    lenet,
    mobilenet,
    nuclei_demo,
    resnet,
    unet,
    vgg,
    views,
    xception,
)
from fastnets.models.entry import ModelEntry
from fastnets.models.weights import load_weights

_FAMILIES = (
    unet,
    brain_unet3d,
    nuclei_demo,
    lenet,
    alexnet,
    vgg,
    googlenet,
    resnet,
    inception,
    inception_resnet,
    xception,
    densenet,
    mobilenet,
    efficientnet,
    cam_networks,
    views,
)
_ENTRIES: dict[str, ModelEntry] = {entry.name: entry for family in _FAMILIES for entry in family.ENTRIES}
_PRETRAINED = Path(__file__).parent / "pretrained"


def create_model(
    name: str,
    *,
    dims: int | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    pretrained: bool | str | Path = False,
    layout: str | None = None,
    optimize: bool = False,
    **config: Any,
) -> nn.Module:
    """Builds a model of `list_models()`.

    `None` leaves dims (2 where the model has a 2D form), in_channels and num_classes at the model's default;
    `config` goes to its constructor. `pretrained` loads weights and switches the model to evaluation mode: True
    those that come with fastnets; a file, or "hf-hub:owner/name", those, whose names and shapes `layout` maps to
    ours (see `load_weights`). Without it the parameters are random.
    With `optimize` the model comes in evaluation mode as fastnets.optimize() makes it.

    Raises InputError for an unknown name, for an option that the model does not take, and where pretrained
    weights do not exist or do not fit the configuration.
    """
    entry = get_entry(name)
    if dims is None:
        dims = entry.dims[0]
    elif dims not in entry.dims:
        accepted = " or ".join(str(d) for d in entry.dims)
        raise InputError(f"create_model: dims={dims} is not a form of {name!r}: pass dims={accepted}")
    asked = {"in_channels": in_channels, "num_classes": num_classes}
    config |= {key: value for key, value in asked.items() if value is not None}

    options = inspect.signature(entry.build).parameters
    for key in config:
        if key not in options:
            accepted = ", ".join(sorted(options.keys() - {"dims"})) or "no options"
            raise InputError(f"create_model: {name!r} does not take {key!r}: it takes {accepted}")
    if "dims" in options:
        config["dims"] = dims
    weights = weights_path(entry) if pretrained is True else pretrained
    model = entry.build(**config)
    if weights:
        load_weights(model, weights, layout=layout)
        model.eval()
    return Optimized(model.eval()) if optimize else model


def list_models(pattern: str = "*") -> list[str]:
    """The sorted names that match a shell pattern such as "unet*"."""
    return sorted(fnmatch.filter(_ENTRIES, pattern))


def get_entry(name: str) -> ModelEntry:
    """What the registry knows of a model. Raises InputError, with the nearest names, for an unknown one."""
    if name in _ENTRIES:
        return _ENTRIES[name]
    near = difflib.get_close_matches(name, _ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"unknown model {name!r}: {hint}`fastnets models` lists all names")


def weights_path(entry: ModelEntry) -> Path:
    """The file of the weights that come with fastnets. Raises InputError where the model has none."""
    if entry.weights is None:
        have = ", ".join(sorted(e.name for e in _ENTRIES.values() if e.weights))
        raise InputError(
            f"no weights of {entry.name!r} come with fastnets (there are some of {have}): "
            "build it with pretrained=False and pass your file to load_weights"
        )
    return _PRETRAINED / entry.weights
