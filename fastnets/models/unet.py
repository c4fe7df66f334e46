"""U-Net in 2D and 3D, with the state_dict names of milesial's Pytorch-UNet."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry


class UNet(nn.Module):
    """Logits for every pixel: (N, in_channels, [D,] H, W) → (N, num_classes, [D,] H, W).

    depth: poolings; `width` channels at full size, twice as many after each pooling.
    norm: "batch" (and convolutions without bias), or "none" (with bias).
    padding: "same" (every side a multiple of 2^depth) or "valid", that of the paper: the output is smaller
        than the input by a fixed margin, and the skips are cropped to the centre; see `output_size`.
    up: "transposed" (2^n, stride 2), or "linear" or "nearest" interpolation, which halves the coarsest
        width. Interpolation does not align corners, so that it means the same in every tile; milesial's
        bilinear U-Net aligns them, and its weights give slightly other outputs here.

    The default is milesial's, (skip, up) being the order of a concatenation. The network of the paper is
    `norm="none", padding="valid", in_channels=1`. For the weights of mateuszbuda's brain-segmentation-pytorch
    build `width=32, num_classes=1`, load with layout="mateuszbuda" and apply the sigmoid that it ends in.

    Raises InputError for shapes that do not fit; `fastnets.infer` pads any image to sizes that do.

    Papers: Ronneberger, Fischer, Brox, "U-Net" (MICCAI 2015); Çiçek et al., "3D U-Net" (MICCAI 2016).
    """

    def __init__(
        self,
        *,
        dims: Literal[2, 3] = 2,
        in_channels: int = 3,
        num_classes: int = 2,
        width: int = 64,
        depth: int = 4,
        norm: Literal["batch", "none"] = "batch",
        padding: Literal["same", "valid"] = "same",
        up: Literal["transposed", "linear", "nearest"] = "transposed",
    ) -> None:
        super().__init__()
        _check_option("norm", norm, ("batch", "none"))
        _check_option("padding", padding, ("same", "valid"))
        _check_option("up", up, ("transposed", "linear", "nearest"))
        _check_option("dims", dims, (2, 3))
        self.dims, self.in_channels, self.depth, self.padding = dims, in_channels, depth, padding

        def double_conv(i: int, middle: int, o: int) -> nn.Sequential:
            return _double_conv(dims, i, middle, o, norm=norm, padding=padding)

        widths = [width << level for level in range(depth + 1)]
        if up != "transposed":
            widths[-1] //= 2
        self.inc = double_conv(in_channels, width, width)
        for level in range(1, depth + 1):
            pool = getattr(nn, f"MaxPool{dims}d")(2)
            conv = double_conv(widths[level - 1], widths[level], widths[level])
            self.add_module(f"down{level}", _named(maxpool_conv=nn.Sequential(pool, conv)))
        below = widths[-1]
        for level in reversed(range(depth)):
            skip = widths[level]
            out = skip if up == "transposed" else widths[max(level - 1, 0)]
            stage = {"up": _upsample(dims, up, below, skip), "conv": double_conv(2 * skip, skip, out)}
            self.add_module(f"up{depth - level}", nn.ModuleDict(stage))
            below = out
        self.outc = _named(conv=getattr(nn, f"Conv{dims}d")(below, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        skips = [self.inc(x)]
        for level in range(1, self.depth + 1):
            skips.append(getattr(self, f"down{level}")(skips[-1]))
        x = skips.pop()
        for level in range(1, self.depth + 1):
            stage = getattr(self, f"up{level}")
            x = stage["up"](x)
            x = stage["conv"](torch.cat((_centre(skips.pop(), x), x), dim=1))
        logits: Tensor = self.outc(x)
        return logits

    def output_size(self, size: int) -> int:
        """The side of the output for a side of the input: the same, or in the paper's network 572 → 388.

        Raises InputError, with the next larger side that fits, where the poolings do not divide it.
        """
        out = self._fit(size)
        if out is None:
            larger = next(s for s in count(size + 1) if self._fit(s) is not None)
            raise InputError(
                f"unet: a side of {size} does not fit {self.depth} poolings with {self.padding!r} padding: "
                f"pad it to {larger}, or let fastnets.infer do so"
            )
        return out

    def _fit(self, size: int) -> int | None:
        """`output_size`, None where there is none."""
        loss = 4 if self.padding == "valid" else 0  # two 3-wide convolutions
        for _ in range(self.depth):
            size -= loss
            if size <= 0 or size % 2:
                return None
            size //= 2
        for _ in range(self.depth):
            if size <= loss:
                return None
            size = 2 * (size - loss)
        return size - loss if size > loss else None

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 + self.dims or x.shape[1] != self.in_channels:
            want = f"(N, {self.in_channels}, {'D, ' if self.dims == 3 else ''}H, W)"
            raise InputError(f"unet: the input has shape {tuple(x.shape)}: it must be {want}")
        for size in x.shape[2:]:
            self.output_size(size)


def _double_conv(dims: int, i: int, middle: int, o: int, *, norm: str, padding: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in ((i, middle), (middle, o)):
        conv = getattr(nn, f"Conv{dims}d")
        layers.append(conv(inner, outer, 3, padding=int(padding == "same"), bias=norm == "none"))
        # Identity keeps the second convolution at index 3, its name in the state_dict.
        layers.append(getattr(nn, f"BatchNorm{dims}d")(outer) if norm == "batch" else nn.Identity())
        layers.append(nn.ReLU())
    return _named(double_conv=nn.Sequential(*layers))


def _upsample(dims: int, up: str, i: int, o: int) -> nn.Module:
    if up == "transposed":
        transposed: nn.Module = getattr(nn, f"ConvTranspose{dims}d")(i, o, 2, stride=2)
        return transposed
    mode = {"nearest2": "nearest", "nearest3": "nearest", "linear2": "bilinear", "linear3": "trilinear"}
    return nn.Upsample(scale_factor=2, mode=mode[f"{up}{dims}"])


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _centre(skip: Tensor, like: Tensor) -> Tensor:
    """The middle of `skip`, as large as `like`; `skip` itself where the padding is "same"."""
    for axis in range(2, skip.ndim):
        size = like.shape[axis]
        if skip.shape[axis] != size:
            skip = skip.narrow(axis, (skip.shape[axis] - size) // 2, size)
    return skip


def _check_option(option: str, value: object, accepted: tuple[object, ...]) -> None:
    if value not in accepted:
        raise InputError(f"unet: {option}={value!r} is not known: pass {' or '.join(map(repr, accepted))}")


ENTRIES = (
    ModelEntry(
        name="unet",
        build=UNet,
        summary="U-Net: encoder and decoder with skip connections, for segmentation",
        paper="Ronneberger, Fischer, Brox, U-Net, MICCAI 2015",
        year=2015,
        parameters=31_037_698,
        dims=(2, 3),
    ),
)
