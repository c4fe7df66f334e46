"""`fastnets explain`: a picture of where a classifier looked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastnets.cli.options import Json, Layout, Weights
from fastnets.cli.show import print_fields, print_json


def explain(
    *,
    path: Annotated[Path, Parameter(name=("--input", "-i"), metavar="PATH")],
    model: Annotated[str, Parameter(name=("--model", "-m"), metavar="NAME")],
    weights: Weights = None,
    layout: Layout = None,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="FILE")] = Path("explained.png"),
    method: Literal["cam", "grad-cam", "grad-cam++"] = "grad-cam",
    target: Annotated[int | None, Parameter(metavar="CLASS")] = None,
    layer: Annotated[str | None, Parameter(metavar="NAME")] = None,
    json: Json = False,
) -> None:
    """Show which parts of a picture speak for a class: the picture, and the picture under a map.

    The picture is resized and cropped as the model's weights expect.

    For example:

        fastnets explain -i cat.jpg -m resnet50 --weights hf-hub:timm/resnet50.tv_in1k
        fastnets explain -i cat.jpg -m efficientnet_lite0 --weights lite0.pth --method cam -o cat.png
        fastnets explain -i cat.jpg -m vgg16 --weights VGG16.pth --layout caffe --target 282 --json

    Parameters
    ----------
    path
        A PNG or JPEG picture.
    model
        A classification network: `fastnets models` lists them.
    output
        The picture to write; its suffix says the format.
    method
        cam is for networks that end in pooling and one linear layer.
    target
        Number of the class to explain; by default the most probable one.
    layer
        The layer whose maps are weighted; by default the last one that has any.
    """
    from fastnets.explain.command import explain_picture

    found = explain_picture(
        path, output, model=model, weights=weights, layout=layout, method=method, target=target, layer=layer
    )
    classes = [{"class": number, "probability": probability} for number, probability in found.best]
    if json:
        print_json({"model": model, "source": path, "picture": output, "target": found.target, "best": classes})
        return
    best = ", ".join(f"{number} ({probability:.1%})" for number, probability in found.best)
    print_fields({"explained class": str(found.target), "most probable": best, "picture": str(output)}, title=str(path))
