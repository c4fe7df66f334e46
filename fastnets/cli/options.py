"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number


def _numbers(kind: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """The numbers of "0.5" or "0.5,0.5,1"."""
    del kind
    return tuple(float(part) for part in tokens[0].value.split(","))


Count = Annotated[int, Parameter(metavar="N", validator=Number(gte=1))]
FLAG = Parameter(negative=(), show_default=False)

Model = Annotated[
    str, Parameter(name=("--model", "-m"), metavar="NAME", help="A model with a recipe: `fastnets models` lists them.")
]
Weights = Annotated[
    str | None,
    Parameter(
        metavar="FILE",
        help="A safetensors or torch file, or hf-hub:owner/name, instead of the weights that come with fastnets.",
    ),
]
Layout = Annotated[
    str | None,
    Parameter(metavar="NAME", help="Whose names the weights have: torchvision, timm, caffe …; by default the model's."),
]
Spacing = Annotated[
    tuple[float, ...] | None,
    Parameter(
        name=("--spacing", "--mpp"),
        metavar="F[,F,F]",
        converter=_numbers,
        n_tokens=1,
        negative=(),
        help="True pixel size, where the file's is missing or wrong: µm for slides and pictures, mm for volumes. "
        "One number, or one an axis with commas between.",
    ),
]
Engine = Annotated[
    Literal["fastnets", "torch"], Parameter(help="What runs the network: the kernels of fastnets, or torch.")
]
Inputs = Annotated[list[str], Parameter(name=("--input", "-i"), metavar="PATH...", consume_multiple=True, negative=())]
Json = Annotated[bool, FLAG, Parameter(help="Print one JSON document on stdout, for programs.")]


def one_or_all(spacing: tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    """As the library takes it: a single number holds for every axis."""
    return spacing[0] if spacing is not None and len(spacing) == 1 else spacing
