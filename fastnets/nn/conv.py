"""Convolutions as modules: plain, dilated and depthwise-separable, in 1, 2 and 3 dimensions."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.ops.conv import conv
from fastnets.ops.conv_arguments import Padding
from fastnets.ops.separable import separable

Sizes = int | tuple[int, ...]


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Padding:
    """Zeros before and after, an axis; "same" puts the odd one after, as torch does."""
    if layer.padding == "valid":
        return 0
    if layer.padding == "same":
        totals = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return tuple(int(p) for p in layer.padding)


def _forward(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    if layer.padding_mode != "zeros":
        raise InputError(f"nn: padding_mode is {layer.padding_mode!r}: pass 'zeros', and pad the input before")
    return conv(
        x,
        layer.weight,
        layer.bias,
        stride=layer.stride,
        padding=_padding(layer),
        dilation=layer.dilation,
        groups=layer.groups,
    )


class Conv1d(nn.Conv1d):
    """torch.nn.Conv1d by fastnets.ops.conv: (N, Cin, L) to (N, Cout, L'), channels-last."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `input`."""
        return _forward(self, input)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d by fastnets.ops.conv: (N, Cin, H, W) to (N, Cout, H', W'), channels-last."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `input`."""
        return _forward(self, input)


class Conv3d(nn.Conv3d):
    """torch.nn.Conv3d by fastnets.ops.conv: (N, Cin, D, H, W) to (N, Cout, D', H', W'), channels-last."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `input`."""
        return _forward(self, input)


class DilatedConv1d(Conv1d):
    """A dilated convolution (https://arxiv.org/abs/1511.07122) that keeps the size of its input."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, dilation: Any, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding="same", dilation=dilation, bias=bias)


class DilatedConv2d(Conv2d):
    """A dilated convolution (https://arxiv.org/abs/1511.07122) that keeps the size of its input."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, dilation: Any, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding="same", dilation=dilation, bias=bias)


class DilatedConv3d(Conv3d):
    """A dilated convolution (https://arxiv.org/abs/1511.07122) that keeps the size of its input."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, dilation: Any, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding="same", dilation=dilation, bias=bias)


class _SeparableConv(nn.Module):
    """A depthwise convolution and a 1x1 convolution of its results in one kernel (https://arxiv.org/abs/1610.02357).

    Args:
        in_channels, out_channels: of the pair.
        kernel_size, stride, padding, dilation: of the depthwise convolution, as torch.nn.Conv takes them.
        depth_multiplier: depthwise results for each input channel.
        bias: of the 1x1 convolution; the depthwise one has none.

    The parameters are `depthwise.weight`, `pointwise.weight` and `pointwise.bias`.
    """

    layer: ClassVar[type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        middle = in_channels * depth_multiplier
        self.depthwise = self.layer(
            in_channels, middle, kernel_size, stride, padding, dilation, groups=in_channels, bias=False
        )
        self.pointwise = self.layer(middle, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial'), channels-last."""
        depthwise = self.depthwise
        return separable(
            input,
            depthwise.weight,
            self.pointwise.weight,
            self.pointwise.bias,
            stride=depthwise.stride,
            padding=_padding(depthwise),
            dilation=depthwise.dilation,
        )


class SeparableConv1d(_SeparableConv):
    __doc__ = _SeparableConv.__doc__
    layer = nn.Conv1d


class SeparableConv2d(_SeparableConv):
    __doc__ = _SeparableConv.__doc__
    layer = nn.Conv2d


class SeparableConv3d(_SeparableConv):
    __doc__ = _SeparableConv.__doc__
    layer = nn.Conv3d
