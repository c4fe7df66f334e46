"""Layouts by name. A new one adds its key map to a file and one entry here."""

from __future__ import annotations

from dataclasses import replace

from fastnets.errors import InputError
from fastnets.models import layouts_classification, layouts_unet
from fastnets.models.entry import ModelEntry
from fastnets.models.layouts import Layout
from fastnets.models.transform import CAFFE_MEAN, InputTransform

LAYOUTS = {
    "torchvision": Layout(rename=layouts_classification.torchvision),
    "timm": Layout(rename=layouts_classification.timm),
    "cadene": Layout(rename=layouts_classification.cadene),
    "caffe": Layout(rename=layouts_classification.caffe, order="bgr", normalize=CAFFE_MEAN),
    "monai": Layout(rename=layouts_classification.monai),
    "milesial": Layout(rename=layouts_unet.milesial),
    "mateuszbuda": Layout(rename=layouts_unet.mateuszbuda),
}


def get_layout(name: str) -> Layout:
    """Raises InputError for an unknown name."""
    if name not in LAYOUTS:
        raise InputError(f"load_weights: layout={name!r} is not known: pass {' or '.join(LAYOUTS)}")
    return LAYOUTS[name]


def input_transform(entry: ModelEntry, *, layout: str | None = None) -> InputTransform:
    """What to do to a picture for a network with weights of `layout`.

    Raises InputError for a network without a transform, which is one that does not classify pictures.
    """
    if entry.transform is None:
        raise InputError(f"{entry.name!r} has no input transform: prepare its input yourself")
    if layout is None:
        return entry.transform
    found = get_layout(layout)
    order, normalize = found.order or entry.transform.order, found.normalize or entry.transform.normalize
    return replace(entry.transform, order=order, normalize=normalize)
