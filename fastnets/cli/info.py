"""`fastnets info`: what an image file or a model is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnets.cli.models import describe, readiness
from fastnets.cli.options import Json
from fastnets.cli.show import print_fields, print_json, print_table, times

if TYPE_CHECKING:
    import torch

    from fastnets.io import Reader
    from fastnets.models import ModelEntry

_EXAMPLE = {2: 256, 3: 64}  # input size of models whose recipe names none: several times their stride


def info(target: str, /, *, json: Json = False) -> None:
    """Show what an image file or a model is.

    Of an image: format, axes, shape, pixel size and the tags it was looked for in, resolution levels. Of a
    model: its recipe for images, licence, paper and receptive field.

    For example:

        fastnets info slide.svs
        fastnets info T1.nii.gz --json
        fastnets info brain_unet3d

    Parameters
    ----------
    target
        An image file, or a name of `fastnets models`.
    """
    from fastnets.models import get_entry, list_models

    if target not in list_models() and (Path(target).exists() or "." in target or "/" in target):
        _image(Path(target), json)
    else:
        _model(get_entry(target), json)


def _image(path: Path, json: bool) -> None:
    from fastnets.io import open_reader

    with open_reader(path) as reader:
        if json:
            print_json(_image_facts(reader))
            return
        fields = {
            "format": reader.format,
            "axes": reader.axes,
            "shape": f"{times(reader.shape)} {reader.dtype}",
            "spacing": _spacing(reader),
            "looked for in": ", ".join(reader.spacing_tags),
        }
        print_fields(fields, title=str(path))
        if len(reader.levels) > 1:
            rows = [
                (str(number), times(level.shape), times([round(d, 3) for d in level.downsample]))
                for number, level in enumerate(reader.levels)
            ]
            print_table(("level", "shape", "downsample"), rows)


def _spacing(reader: Reader) -> str:
    if reader.spacing is None:
        option = "--mpp" if reader.unit == "µm" else "--spacing"
        return f"unknown: give it with {option}, in {reader.unit}"
    return f"{times(reader.spacing)} {reader.unit}"


def _image_facts(reader: Reader) -> dict[str, Any]:
    return {
        "path": reader.path,
        "format": reader.format,
        "axes": reader.axes,
        "shape": reader.shape,
        "dtype": str(reader.dtype),
        "spacing": reader.spacing,
        "unit": reader.unit,
        "spacing_tags": reader.spacing_tags,
        "levels": [asdict(level) for level in reader.levels],
        "affine": None if reader.affine is None else reader.affine.tolist(),
    }


def _model(entry: ModelEntry, json: bool) -> None:
    field = _receptive_field(entry)
    if json:
        recipe = None if entry.recipe is None else asdict(entry.recipe)
        print_json({**describe(entry), "recipe": recipe, "receptive_field": field})
        return
    fields = {
        "summary": entry.summary,
        "paper": entry.paper,
        "dims": ", ".join(f"{d}D" for d in entry.dims),
        "parameters": f"{entry.parameters:,}",
        "predict": readiness(entry),
        "reference": entry.reference or "",
        "weights elsewhere": entry.known_weights or "",
        "headline": entry.headline or "",
        "licence": entry.licence or "",
        **_recipe_fields(entry),
        **_field_words(field),
    }
    print_fields(fields, title=entry.name)


def _recipe_fields(entry: ModelEntry) -> dict[str, str]:
    recipe = entry.recipe
    if recipe is None:
        return {}
    grid = "that of the file"
    if recipe.size is not None:
        grid = f"resized to {times(recipe.size)}"
    elif recipe.spacing is not None:
        grid = f"{times(recipe.spacing)} {recipe.unit} a pixel"
    return {
        "input": f"{recipe.channels} channel{'s' * (recipe.channels > 1)}, axes {recipe.axes}",
        "resolution": grid,
        "classes": ", ".join(f"{c.value} {c.name}" for c in recipe.classes),
        "use": recipe.description,
        "caution": recipe.caution,
    }


def _receptive_field(entry: ModelEntry) -> dict[str, Any]:
    """Size, stride and offset a spatial axis; or why there are none."""
    import torch

    from fastnets.errors import InputError
    from fastnets.models import create_model
    from fastnets.tiling import receptive_field

    model = create_model(entry.name).eval()
    size = entry.recipe.size if entry.recipe is not None else None
    shape = (1, _channels(model), *(size or (_EXAMPLE[entry.dims[0]],) * entry.dims[0]))
    try:
        found = receptive_field(model, torch.zeros(shape))
    except InputError as error:  # a classifier: its output does not follow the image
        return {"input": shape, "reason": str(error)}
    inexact = sorted({str(layer) for layer in found.inexact})
    return {"input": shape, "size": found.size, "stride": found.stride, "offset": found.offset, "inexact": inexact}


def _channels(model: torch.nn.Module) -> int:
    """What the first convolution reads."""
    return next((int(p.shape[1]) for p in model.parameters() if p.ndim > 2), 1)


def _field_words(field: dict[str, Any]) -> dict[str, str]:
    if "reason" in field:
        return {"receptive field": f"none: {field['reason']}"}
    exact = "exact" if not field["inexact"] else f"not exact, because of {'; '.join(field['inexact'])}"
    return {"receptive field": f"{times(field['size'])}, stride {times(field['stride'])}", "tiling": exact}
