"""What `fastnets explain` does: from a file to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from fastnets.errors import InputError
from fastnets.explain.maps import cam, grad_cam, grad_cam_pp
from fastnets.explain.picture import beside, overlay
from fastnets.io import open_reader
from fastnets.io.atomic import atomic_path
from fastnets.models import create_model, get_entry, input_transform
from fastnets.models.transform import crop, prepare

METHODS = {"cam": cam, "grad-cam": grad_cam, "grad-cam++": grad_cam_pp}
_BEST = 3


@dataclass(frozen=True)
class Explanation:
    """The class that was explained, and the most probable classes with their probabilities."""

    target: int
    best: tuple[tuple[int, float], ...]


def explain_picture(
    path: Path | str,
    output: Path | str,
    *,
    model: str,
    weights: Path | str | None = None,
    layout: str | None = None,
    method: str = "grad-cam",
    target: int | None = None,
    layer: str | None = None,
) -> Explanation:
    """Writes the picture at `path` as the network sees it, beside itself under a map.

    weights, layout: as for `create_model`. method: a name of METHODS. target, layer: as for `cam`.

    Raises InputError for an unknown method, a network that does not classify pictures, and one without weights.
    """
    if method not in METHODS:
        raise InputError(f"explain: method={method!r} is not known: pass {' or '.join(METHODS)}")
    output = Path(output)
    if output.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"explain: {output} has no picture's suffix: end it in .png or .jpg")
    transform = input_transform(get_entry(model), layout=layout)
    network = create_model(model, pretrained=True if weights is None else weights, layout=layout)
    with open_reader(path) as reader:
        image = reader.read(tuple(slice(0, size) for size in reader.levels[0].shape))
    x = prepare(image, transform)
    with torch.inference_mode():
        probabilities = network(x).softmax(1)[0]
    values, numbers = probabilities.topk(min(_BEST, len(probabilities)))
    chosen = int(numbers[0]) if target is None else target
    heat = METHODS[method](network, x, target=chosen, layer=layer)[0]
    seen = crop(image, transform)
    with atomic_path(output) as partial:
        beside(seen, overlay(seen, heat)).save(partial)
    return Explanation(chosen, tuple(zip(numbers.tolist(), values.tolist(), strict=True)))
