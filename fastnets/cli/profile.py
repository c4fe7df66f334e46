"""`fastnets profile`: where the time of a network goes."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fastnets.cli.options import Count, Json, Weights
from fastnets.cli.show import print_json, stdout
from fastnets.errors import InputError


def profile(
    *,
    model: Annotated[str, Parameter(name=("--model", "-m"), metavar="NAME", help="Any name of `fastnets models`.")],
    shape: Annotated[str, Parameter(name=("--shape", "-s"), metavar="N,C,...")],
    weights: Weights = None,
    runs: Count = 10,
    json: Json = False,
) -> None:
    """Run a network on noise and show each of its steps: kernel, time, share of the machine's peak, memory.

    For example:

        fastnets profile -m resnet50 -s 1,3,224,224
        fastnets profile -m unet3d -s 1,1,96,96,96 --json

    Parameters
    ----------
    shape
        Of the input: batch, channels and spatial size, with commas between.
    runs
        Medians are over so many runs.
    """
    import torch

    from fastnets.engine import optimize
    from fastnets.models import create_model, load_weights

    try:
        sizes = tuple(int(part) for part in shape.split(","))
    except ValueError:
        sizes = ()
    if not 3 <= len(sizes) <= 5 or min(sizes) < 1:
        raise InputError(f"--shape {shape}: pass batch, channels and 1 to 3 spatial sizes, such as 1,3,224,224")
    network = create_model(model, dims=3 if len(sizes) == 5 else None, in_channels=sizes[1])
    if weights is not None:
        load_weights(network, weights)
    explanation = optimize(network.eval(), torch.randn(sizes)).explain(runs=runs)
    if json:
        print_json(explanation.document())
    else:
        stdout().print(str(explanation), soft_wrap=True)
