"""What bench/gpu.py measures: our op, the same in torch, and the bytes and operations that it needs at least."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastnets.ops.conv import conv
from fastnets.ops.conv_transpose import conv_transpose
from fastnets.ops.depthwise import depthwise
from fastnets.ops.inverted_bottleneck import inverted_bottleneck
from fastnets.ops.nms import nms
from fastnets.ops.norm import instance_norm
from fastnets.ops.resize_argmax import resize_argmax
from fastnets.ops.separable import separable
from fastnets.tiling.sliding_window import sliding_window_inference

CONVS = {2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class Case:
    """`make` gives the arguments of both functions. `compiled`: torch.compile is a peer too."""

    name: str
    make: Callable[[], tuple[Any, ...]]
    ours: Callable[..., Any]
    torch: Callable[..., Any]
    moved: float
    operations: float
    compiled: bool = False


@dataclass(frozen=True)
class Factory:
    """Makes tensors; `small` divides batches and sizes for the check without a GPU."""

    device: torch.device
    small: bool

    def image(self, batch: int, channels: int, *size: int) -> Tensor:
        """bfloat16, or float32 in the check, channels-last."""
        batch, channels = (1, min(channels, 4)) if self.small else (batch, channels)
        size = tuple(min(n, 4) for n in size) if self.small else size
        return self.values(batch, *size, channels).movedim(-1, 1)

    def values(self, *shape: int) -> Tensor:
        dtype = torch.float32 if self.small else torch.bfloat16
        return torch.randn(shape, device=self.device).to(dtype)

    def weight(self, outputs: int, inputs: int, *kernel: int) -> Tensor:
        outputs, inputs = (min(outputs, 4), min(inputs, 4)) if self.small else (outputs, inputs)
        return self.values(outputs, inputs, *kernel) / math.sqrt(inputs * math.prod(kernel))


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _depthwise(f: Factory, batch: int, channels: int, size: tuple[int, ...], k: int, *, compiled: bool = False) -> Case:
    k = min(k, 11) if f.small else k

    def make() -> tuple[Any, ...]:
        x = f.image(batch, channels, *size)
        weight = f.weight(x.shape[1], 1, *(k,) * len(size))
        return x, weight, f.values(x.shape[1]), torch.randn_like(x)

    def ours(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        return depthwise(x, w, b, padding=k // 2, residual=r, activation="relu", implementation="triton_depthwise")

    def peer(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        return torch.relu(CONVS[x.dim() - 2](x, w, b, padding=k // 2, groups=x.shape[1]) + r)

    x, *_ = make()
    name = f"depthwise {k} {channels}x{'x'.join(map(str, size))} n{batch} bias residual relu"
    return Case(name, make, ours, peer, 3 * _bytes(x), 0, compiled)


def _depthwise_backward(f: Factory, batch: int, channels: int, size: tuple[int, ...], k: int) -> Case:
    forward = _depthwise(f, batch, channels, size, k)

    def make() -> tuple[Any, ...]:
        x, w, _, g = forward.make()
        return x.requires_grad_(), w.requires_grad_(), g

    def run(function: Callable[..., Tensor], x: Tensor, w: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(x, w), (x, w), g)

    def ours(x: Tensor, w: Tensor) -> Tensor:
        return depthwise(x, w, padding=k // 2, implementation="triton_depthwise")

    def peer(x: Tensor, w: Tensor) -> Tensor:
        return CONVS[x.dim() - 2](x, w, padding=k // 2, groups=x.shape[1])

    name = f"forward and backward of depthwise {k} {channels}x{'x'.join(map(str, size))} n{batch}"
    return Case(name, make, partial(run, ours), partial(run, peer), 3 * forward.moved, 0)


def _separable(f: Factory, batch: int, channels: int, size: int, *, compiled: bool = False) -> Case:
    def make() -> tuple[Any, ...]:
        x = f.image(batch, channels, size, size)
        c = x.shape[1]
        return x, f.weight(c, 1, 3, 3), f.weight(c, c, 1, 1), f.values(c), f.values(c)

    def ours(x: Tensor, d: Tensor, p: Tensor, m: Tensor, b: Tensor) -> Tensor:
        kinds = {"middle_activation": "relu6", "activation": "relu6"}
        return separable(x, d, p, b, middle_bias=m, padding=1, **kinds, implementation="triton")

    def peer(x: Tensor, d: Tensor, p: Tensor, m: Tensor, b: Tensor) -> Tensor:
        middle = functional.relu6(functional.conv2d(x, d, m, padding=1, groups=x.shape[1]))
        return functional.relu6(functional.conv2d(middle, p, b))

    x = make()[0]
    operations = 2 * x.numel() * x.shape[1]
    name = f"depthwise and pointwise {channels}x{size}x{size} n{batch}"
    return Case(name, make, ours, peer, _bytes(x, x), operations, compiled)


def _inverted(f: Factory, batch: int, channels: int, size: int, *, compiled: bool = False) -> Case:
    """MobileNetV2's block of six times the channels."""

    def make() -> tuple[Any, ...]:
        x = f.image(batch, channels, size, size)
        c = x.shape[1]
        e, d, p = f.weight(6 * c, c, 1, 1), f.weight(6 * c, 1, 3, 3), f.weight(c, 6 * c, 1, 1)
        return x, e, d, p, f.values(len(d)), f.values(len(d)), f.values(c)

    def ours(x: Tensor, e: Tensor, d: Tensor, p: Tensor, first: Tensor, middle: Tensor, last: Tensor) -> Tensor:
        kinds = {"expand_activation": "relu6", "middle_activation": "relu6"}
        biases = {"expand_bias": first, "middle_bias": middle}
        return inverted_bottleneck(x, e, d, p, last, **biases, **kinds, padding=1, residual=x, implementation="triton")

    def peer(x: Tensor, e: Tensor, d: Tensor, p: Tensor, first: Tensor, middle: Tensor, last: Tensor) -> Tensor:
        wide = functional.relu6(functional.conv2d(x, e, first))
        wide = functional.relu6(functional.conv2d(wide, d, middle, padding=1, groups=len(d)))
        return functional.conv2d(wide, p, last) + x

    x = make()[0]
    operations = 2 * x.numel() * 12 * x.shape[1]
    name = f"inverted bottleneck {channels}x{size}x{size} n{batch}"
    return Case(name, make, ours, peer, _bytes(x, x), operations, compiled)


def _conv(f: Factory, batch: int, channels: int, size: tuple[int, ...], *, dilation: int = 1, groups: int = 1,
          inputs: int = 0, compiled: bool = False) -> Case:  # fmt: skip
    def make() -> tuple[Any, ...]:
        x = f.image(batch, inputs or channels, *size)
        own = min(groups, x.shape[1])
        outputs = x.shape[1] if not inputs else channels
        return x, f.weight(outputs, x.shape[1] // own, *(3,) * len(size)), own

    def ours(x: Tensor, w: Tensor, own: int) -> Tensor:
        options = {"padding": dilation, "dilation": dilation, "groups": own, "activation": "relu"}
        return conv(x, w, implementation="triton_product", **options)

    def peer(x: Tensor, w: Tensor, own: int) -> Tensor:
        return torch.relu(CONVS[x.dim() - 2](x, w, padding=dilation, dilation=dilation, groups=own))

    x, w, _ = make()
    pixels = x.numel() // x.shape[1]
    moved = _bytes(x) * (1 + w.shape[0] / x.shape[1])
    what = f"dilation {dilation}" if dilation > 1 else f"groups {groups}" if groups > 1 else "plain"
    name = f"conv 3 {inputs or channels} to {channels} {'x'.join(map(str, size))} n{batch} {what}"
    return Case(name, make, ours, peer, moved, 2 * pixels * w.numel(), compiled)


def _norm(f: Factory, batch: int, channels: int, size: tuple[int, ...], *, compiled: bool = False) -> Case:
    def make() -> tuple[Any, ...]:
        x = f.image(batch, channels, *size)
        return x, f.values(x.shape[1]), f.values(x.shape[1])

    def ours(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return instance_norm(x, w, b, activation="leaky", implementation="triton")

    def peer(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.leaky_relu(functional.instance_norm(x, weight=w, bias=b))

    x = make()[0]
    name = f"instance norm leaky {channels}x{'x'.join(map(str, size))} n{batch}"
    return Case(name, make, ours, peer, 3 * _bytes(x), 0, compiled)


def _transposed(f: Factory, inputs: int, outputs: int, size: tuple[int, ...]) -> Case:
    def make() -> tuple[Any, ...]:
        x = f.image(2, inputs, *size)
        return x, f.weight(x.shape[1], outputs, *(2,) * len(size))

    def ours(x: Tensor, w: Tensor) -> Tensor:
        return conv_transpose(x, w, stride=2, implementation="triton")

    def peer(x: Tensor, w: Tensor) -> Tensor:
        return functional.conv_transpose3d(x, w, stride=2)

    x, w = make()
    pixels, taps = x.numel() // x.shape[1], w[0, 0].numel()
    moved = _bytes(x) + pixels * taps * w.shape[1] * x.element_size()
    name = f"transposed 2 stride 2 {inputs} to {outputs} {'x'.join(map(str, size))}"
    return Case(name, make, ours, peer, moved, 2 * pixels * w.numel())


def _labels(f: Factory) -> Case:
    size = (8, 9, 10) if f.small else (512, 512, 512)

    def peer(x: Tensor) -> Tensor:
        large = functional.interpolate(x.contiguous(), size=size, mode="trilinear")
        return large.argmax(1).to(torch.uint8)

    x = f.image(1, 16, 128, 128, 128)
    name = "labels of 16 logits, 128^3 to 512^3"
    ours = partial(resize_argmax, size=size, implementation="triton")
    return Case(name, lambda: (x,), ours, peer, _bytes(x) + math.prod(size), 0)


def _nms(f: Factory) -> Case:
    count = 40 if f.small else 4000

    def make() -> tuple[Any, ...]:
        corner = 1000 * torch.rand(count, 2, device=f.device)
        boxes = torch.cat([corner, corner + 100 * torch.rand(count, 2, device=f.device)], dim=1)
        return boxes, torch.rand(count, device=f.device)

    name = f"nms of {count} boxes, against its reference in torch"
    peer = partial(nms, threshold=0.5, implementation="torch")
    return Case(name, make, partial(nms, threshold=0.5, implementation="triton"), peer, 16 * count + count**2 / 4, 0)


def _windows(f: Factory) -> Case:
    """A whole volume through a network that does next to nothing: what is left is cutting and stitching."""
    size, roi = (12, 8) if f.small else (512, 96)
    weight = torch.randn(4, 1, 1, 1, 1, device=f.device)

    def network(x: Tensor) -> Tensor:
        return functional.conv3d(x, weight)

    def ours(x: Tensor) -> Tensor:
        return sliding_window_inference(x, roi, 4, network, overlap=0.5, mode="gaussian")

    def peer(x: Tensor) -> Tensor:
        from monai.inferers import sliding_window_inference as of_monai

        return of_monai(x, roi, 4, network, overlap=0.5, mode="gaussian")

    x = torch.randn(1, 1, size, size, size, device=f.device)
    return Case(f"sliding windows of {roi}^3 over {size}^3, against MONAI", lambda: (x,), ours, peer, 5 * _bytes(x), 0)


def cases(f: Factory) -> list[Case]:
    """The most telling first: the time may not suffice for all."""
    return [
        _depthwise(f, 32, 64, (112, 112), 3, compiled=True),
        _depthwise(f, 32, 96, (56, 56), 7, compiled=True),
        _separable(f, 32, 256, 56, compiled=True),
        _conv(f, 1, 32, (96, 96, 96), dilation=4, compiled=True),
        _norm(f, 2, 32, (96, 96, 96), compiled=True),
        _labels(f),
        *([_windows(f)] if find_spec("monai") else []),
        _separable(f, 32, 512, 28),
        _separable(f, 32, 728, 19),
        _separable(f, 1, 128, 112),
        _inverted(f, 32, 24, 56, compiled=True),
        _inverted(f, 8, 32, 128),
        _depthwise(f, 2, 32, (64, 64, 64), 3),
        _depthwise(f, 32, 192, (56, 56), 5),
        _depthwise(f, 8, 64, (64, 64), 31),
        _depthwise_backward(f, 32, 64, (112, 112), 3),
        _conv(f, 1, 21, (96, 96, 96), dilation=2),
        _conv(f, 1, 32, (96, 96, 96)),
        _conv(f, 1, 32, (96, 96, 96), inputs=1),
        _conv(f, 8, 64, (128, 128), dilation=8),
        _conv(f, 32, 256, (56, 56), groups=32),
        _norm(f, 32, 64, (112, 112)),
        _transposed(f, 128, 64, (24, 24, 24)),
        _nms(f),
    ]
