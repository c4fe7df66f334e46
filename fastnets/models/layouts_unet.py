"""Key maps of U-Nets."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from fastnets.models.layouts import Own, State


def milesial(state: State, own: Own) -> State:
    """Pytorch-UNet → UNet. The names are ours; its checkpoints carry the mask values of their data set too."""
    return {name: value for name, value in state.items() if name != "mask_values"}


def mateuszbuda(state: State, own: Own) -> State:
    """brain-segmentation-pytorch → UNet(width=32, num_classes=1).

    Its decoders concatenate (up, skip) and ours (skip, up): the input channels of the convolution that
    follows are swapped by halves.
    """
    renamed = {}
    for name, value in state.items():
        if re.fullmatch(r"decoder\d\.dec\dconv1\.weight", name):
            value = torch.roll(value, value.shape[1] // 2, dims=1)
        for pattern, replace in _MATEUSZBUDA:
            if match := re.match(pattern, name):
                name = replace(match) + name[match.end() :]
                break
        renamed[name] = value
    return renamed


def _block(match: re.Match[str]) -> str:
    """encoder2.enc2norm1 → down1.maxpool_conv.1.double_conv.1, and so on."""
    kind, level, layer, nth = match.group("kind", "level", "layer", "nth")
    index = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}[layer + nth]
    if kind == "decoder":
        return f"up{5 - int(level)}.conv.double_conv.{index}"
    below = 4 if kind == "bottleneck" else int(level) - 1
    return f"down{below}.maxpool_conv.1.double_conv.{index}" if below else f"inc.double_conv.{index}"


_MATEUSZBUDA: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"(?P<kind>encoder|decoder|bottleneck)(?P<level>\d?)\.\D+\d?(?P<layer>conv|norm)(?P<nth>\d)", _block),
    (r"upconv(\d)", lambda match: f"up{5 - int(match[1])}.up"),
    (r"conv\b", lambda _: "outc.conv"),
)
