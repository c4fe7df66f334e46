"""Random convolutional networks for property tests: hypothesis draws a list of layers, `RandomNet` runs it."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
WIDTH = 4


class Pad(nn.Module):
    """Padding (or cropping, by negative amounts) at the two ends of every axis."""

    def __init__(self, dims: int, left: int, right: int, mode: str) -> None:
        super().__init__()
        self.amounts, self.mode = [left, right] * dims, mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, self.amounts, mode=self.mode)


class Subsample(nn.Module):
    """x[..., start::step] along every axis."""

    def __init__(self, dims: int, start: int, step: int) -> None:
        super().__init__()
        self.key = (..., *[slice(start, None, step)] * dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[self.key]


class InPlace(nn.Module):
    """Adds a constant in place, then relu_."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1.5
        x += 0.1
        return x.relu_()


class Skip(nn.Module):
    """A branch beside a shortcut; both cropped to the common size at their starts, then joined."""

    def __init__(self, dims: int, branch: list[nn.Module], join: str) -> None:
        super().__init__()
        self.dims, self.branch, self.join = dims, nn.Sequential(*branch), join
        self.mix = CONV[dims](2 * WIDTH, WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)
        size = [min(a, b) for a, b in zip(x.shape[-self.dims :], y.shape[-self.dims :], strict=True)]
        key = (..., *[slice(0, n) for n in size])
        if self.join == "add":
            return x[key] + y[key]
        return self.mix(torch.cat([y[key], x[key]], 1))


def _layer(draw: st.DrawFn, dims: int) -> nn.Module:
    kind = draw(st.sampled_from(["conv", "conv", "max", "avg", "transposed", "up", "pad", "norm", "sub", "inplace"]))
    small = st.integers(0, 2)
    if kind == "conv":
        same = draw(st.booleans())
        kernel, dilation = draw(st.integers(1, 4 if not same else 3)), draw(st.integers(1, 3))
        mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate"]))
        if same:
            return CONV[dims](WIDTH, WIDTH, kernel, padding="same", dilation=dilation, padding_mode="zeros")
        stride, padding = draw(st.integers(1, 3)), draw(small)
        return CONV[dims](
            WIDTH, WIDTH, kernel, stride, padding, dilation, groups=draw(st.sampled_from([1, WIDTH])), padding_mode=mode
        )
    if kind in ("max", "avg"):
        kernel = draw(st.integers(2, 3))
        options: dict[str, Any] = {
            "stride": draw(st.integers(1, 3)),
            "padding": draw(st.integers(0, 1)),
            "ceil_mode": draw(st.booleans()),
        }
        if kind == "max":
            return MAX_POOL[dims](kernel, **options)
        return AVG_POOL[dims](kernel, **options, count_include_pad=draw(st.booleans()))
    if kind == "transposed":
        stride = draw(st.integers(1, 3))
        kernel = draw(st.integers(1, 4))
        return TRANSPOSED[dims](
            WIDTH,
            WIDTH,
            kernel,
            stride,
            padding=draw(st.integers(0, min(1, kernel - 1))),
            output_padding=draw(st.integers(0, stride - 1)),
            dilation=1,
        )
    if kind == "up":
        factor, linear = draw(st.integers(2, 3)), draw(st.booleans())
        mode = {2: "bilinear", 3: "trilinear"}[dims] if linear else "nearest"
        return nn.Upsample(scale_factor=factor, mode=mode)
    if kind == "pad":
        mode = draw(st.sampled_from(["constant", "constant", "reflect", "replicate"]))
        least = -2 if mode == "constant" else 0
        return Pad(dims, draw(st.integers(least, 2)), draw(st.integers(least, 2)), mode)
    if kind == "sub":
        return Subsample(dims, draw(st.integers(0, 2)), draw(st.integers(1, 2)))
    return NORM[dims](WIDTH) if kind == "norm" else InPlace()


def _branch(draw: st.DrawFn, dims: int) -> list[nn.Module]:
    """Layers that end on the stride they began with: a convolution, or down, anything, and up again."""
    if draw(st.booleans()):
        return [CONV[dims](WIDTH, WIDTH, draw(st.integers(1, 3)), padding=draw(st.integers(0, 2))), InPlace()]
    factor = draw(st.integers(2, 3))
    middle = CONV[dims](WIDTH, WIDTH, 3, padding=1)
    up = TRANSPOSED[dims](WIDTH, WIDTH, factor, factor) if draw(st.booleans()) else nn.Upsample(scale_factor=factor)
    return [MAX_POOL[dims](factor, ceil_mode=draw(st.booleans())), middle, up]


@st.composite
def networks(draw: st.DrawFn, dims: int) -> nn.Module:
    """A float64 network in eval mode with random weights: up to 6 layers, some of them inside skips."""
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)) == 0:
            branch = _branch(draw, dims)
            layers.append(Skip(dims, branch, draw(st.sampled_from(["add", "cat"]))))
        else:
            layers.append(_layer(draw, dims))
    net = nn.Sequential(CONV[dims](2, WIDTH, 1), *layers).double().eval()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.normal_(0.0, 0.5, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return net
