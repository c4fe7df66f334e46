"""A class activation map over a whole slide or volume, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.explain.layers import captured, linear_head
from fastnets.tiling.infer import infer


def whole_cam(
    model: nn.Module,
    image: Any,
    *,
    target: int,
    layer: str,
    head: str | None = None,
    tile: int | Sequence[int] | None = None,
    max_ram: str | int | None = None,
    exact: bool = True,
    out: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The `cam` of an image of any size, without ever running the network on more than one tile.

    Args:
        model, target, layer, head: as for `cam`, the layer being named. What follows it must take maps of
            any size, as global pooling does.
        image: NumPy, torch or Zarr array (N, C, *spatial), prepared as the network wants it.
        tile, max_ram, exact, out, progress: as for `fastnets.infer`.

    Returns:
        `out`, or a torch tensor (N, 1, *spatial') of the layer's own resolution.

    Raises:
        InputError: as `cam` and `fastnets.infer`.
    """
    network = _Evidence(model, layer, linear_head(model, head), target).eval()
    return infer(network, image, tile=tile, max_ram=max_ram, exact=exact, out=out, progress=progress)


class _Evidence(nn.Module):
    """The evidence for one class at every position of a layer: (N, C, …) → (N, 1, …)."""

    def __init__(self, model: nn.Module, layer: str, head: nn.Linear, target: int) -> None:
        super().__init__()
        self.model, self.layer = model, layer
        self.weight: Tensor
        self.register_buffer("weight", head.weight.detach()[target])

    def forward(self, x: Tensor) -> Tensor:
        with captured(self.model, self.layer) as outputs:
            self.model(x)
        maps = outputs[-1]
        if maps.shape[1] != len(self.weight):
            raise InputError(
                f"whole_cam: {self.layer!r} gives {maps.shape[1]} channels and the linear layer reads "
                f"{len(self.weight)}: name the layer whose output is pooled"
            )
        weight = self.weight.view(1, -1, *[1] * (maps.ndim - 2))
        return (maps * weight).sum(1, keepdim=True)
