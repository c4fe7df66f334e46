"""upfirdn2d: upsampling by zeros, padding, a FIR filter and downsampling in one pass: the resampler of StyleGAN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import delivered, float32_refusal, out_refusal, per_axis, result_like
from fastnets.ops.layout import array5, channels_last, threads
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class Upfirdn2dCall:
    """The checked arguments; up, down: y, x; padding: before and after of y, then of x."""

    x: Tensor
    kernel: Tensor
    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    flip: bool = False
    gain: float = 1.0
    out: Tensor | None = None

    @property
    def taps(self) -> tuple[int, int]:
        """The size of the filter along y and x."""
        return self.kernel.shape[0], self.kernel.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        pads = sum(self.padding[:2]), sum(self.padding[2:])
        rows = zip(self.x.shape[2:], self.up, self.down, pads, self.taps, strict=True)
        return (*self.x.shape[:2], *((size * u + pad - k) // d + 1 for size, u, d, pad, k in rows))


def upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[Sequence[int]] = 0,
    flip: bool = False,
    gain: float = 1.0,
    implementation: str | None = None,
) -> Tensor:
    """Every `down`-th value of the convolution of `kernel` with `x`, between whose pixels are `up` - 1 zeros.

    As in StyleGAN (https://arxiv.org/abs/1812.04948, 1912.04958, 2006.06676); differentiable in `x`.

    Args:
        x: (N, C, H, W), floating point.
        kernel: (k,), the filter along both axes, or (ky, kx); of the dtype of `x`.
        up, down: one number, or one for y and one for x.
        padding: zeros around the upsampled image: one number, or (before, after) for y and for x. Negative ones crop.
        flip: correlate instead of convolving.
        gain: what the result is multiplied by.
        implementation: "native" (CPU, float32) or "torch"; None takes the first that can run.

    Raises:
        InputError: the arguments do not fit together, the kernel requires gradients, or `implementation` cannot run.
    """
    op = "upfirdn2d"
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(f"{op}: x is {x.dtype} of shape {tuple(x.shape)}: pass floating point (N, C, H, W)")
    if kernel.dim() not in (1, 2) or kernel.numel() < 1 or kernel.dtype != x.dtype:
        raise InputError(
            f"{op}: kernel is {kernel.dtype} of shape {tuple(kernel.shape)}: pass {x.dtype} (k,) or (ky, kx)"
        )
    if kernel.requires_grad:
        raise InputError(f"{op}: kernel requires gradients, and has none: pass kernel.detach()")
    pairs = [(padding, padding)] * 2 if isinstance(padding, int) else [tuple(pair) for pair in padding]
    if [len(pair) for pair in pairs] != [2, 2]:
        raise InputError(f"{op}: padding is {padding}: pass one number, or (before, after) for y and for x")
    (top, bottom), (left, right) = pairs
    (up_y, up_x), (down_y, down_x) = per_axis(op, "up", up, 2, 1), per_axis(op, "down", down, 2, 1)
    call = Upfirdn2dCall(x, kernel, (up_y, up_x), (down_y, down_x), (top, bottom, left, right), flip, float(gain))
    if min(call.shape[2:]) < 1 or min(x.shape[2:]) < 1:
        raise InputError(
            f"{op}: kernel {call.taps} on x {tuple(x.shape)}, up {call.up} and padding {padding}, gives {call.shape}: "
            "pass a larger x or more padding"
        )
    result: Tensor = _operator(*_flat(call), implementation)
    return result


def _flat(call: Upfirdn2dCall) -> tuple[Any, ...]:
    return (call.x, call.kernel, list(call.up), list(call.down), list(call.padding), call.flip, call.gain)


def _refusal(call: Upfirdn2dCall) -> str | None:
    return float32_refusal(call.x, call.kernel, call.out) or out_refusal(call.out)


def _run(call: Upfirdn2dCall) -> Tensor:
    out = result_like(call.x, call.shape, call.out)
    kernel = call.kernel.detach()
    _C.upfirdn2d(
        x=array5(channels_last(call.x)),
        out=array5(out),
        kernel=(kernel if call.flip else kernel.flip(list(range(kernel.dim())))).contiguous().numpy(),
        up=call.up,
        down=call.down,
        pad=(call.padding[0], call.padding[2]),
        gain=call.gain,
        nthreads=threads(),
    )
    return out


def _reference(call: Upfirdn2dCall) -> Tensor:
    x, (up_y, up_x), (down_y, down_x) = call.x, call.up, call.down
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, height, up_y, width, up_x)
    spread[:, :, :, 0, :, 0] = x
    spread = spread.view(batch, channels, height * up_y, width * up_x)
    top, bottom, left, right = (max(p, 0) for p in call.padding)
    padded = functional.pad(spread, [left, right, top, bottom])
    top, bottom, left, right = (max(-p, 0) for p in call.padding)  # functional.pad crops no more than the image
    padded = padded[:, :, top : padded.shape[2] - bottom, left : padded.shape[3] - right]
    kernel = call.kernel if call.kernel.dim() == 2 else call.kernel[:, None] * call.kernel
    kernel = (kernel if call.flip else kernel.flip([0, 1])) * call.gain
    y = functional.conv2d(padded, kernel.expand(channels, 1, *kernel.shape), groups=channels)
    return y[:, :, ::down_y, ::down_x]


OP = Op(
    "upfirdn2d",
    _reference,
    (
        Implementation("native", _refusal, _run),
        Implementation("torch", lambda call: None, lambda call: delivered(_reference(call), call.out)),
    ),
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernel, *ctx.rest = inputs[:-1]
    ctx.save_for_backward(kernel)
    ctx.sizes = x.shape[2:], output.shape[2:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The same operation with the mirrored kernel, and upsampling and downsampling exchanged."""
    (kernel,) = ctx.saved_tensors
    up, down, padding, flip, gain = ctx.rest
    pads = []
    for axis, taps in enumerate((kernel.shape[0], kernel.shape[-1])):
        size, out = ctx.sizes[0][axis], ctx.sizes[1][axis]
        before = taps - 1 - padding[2 * axis]
        # so many that the result has the size of x
        pads += [before, (size - 1) * up[axis] + taps - out * down[axis] - before]
    return _operator(grad, kernel, down, up, pads, not flip, gain, None), *(None,) * 7


_operator = register(
    OP,
    "Tensor x, Tensor kernel, int[] up, int[] down, int[] padding, bool flip, float gain",
    Upfirdn2dCall,
    result=lambda call: result_like(call.x, call.shape, None),
    gradients=(_setup_context, _backward),
)
