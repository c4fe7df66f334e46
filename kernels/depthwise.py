"""Depthwise convolution in 1 to 3 dimensions, channels-last, with its epilogue; gradients of data and weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.epilogue import activate
from fastnets.kernels.tile import source
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.conv_arguments import ConvCall
from fastnets.ops.layout import channels_last, empty_channels_last


@dataclass(frozen=True)
class Config:
    """Outputs of a program: `rows` x `block_x` x `block_c`. Rows share the input rows that they load."""

    rows: int
    block_x: int
    block_c: int
    warps: int


@tuned
def choose(call: ConvCall) -> Config:
    """16 bytes a thread and load; rows where neighbouring ones share inputs. By reasoning, not measured yet."""
    _, channels, *out = call.out_shape
    shared = call.weight.dim() > 3 and call.weight.shape[-2] > 1 and call.window.stride[-2] == call.window.dilation[-2]
    rows = 1 if not shared else 2 if call.weight.shape[-2] < 7 else 4
    return _config(channels, out[-1], rows)


def _config(channels: int, width: int, rows: int) -> Config:
    block_c = 64 if channels % 64 == 0 or channels > 512 else run.block(channels, 32)
    block_x = run.block(width, max(1024 // block_c, 1))
    return Config(rows, block_x, block_c, max(1, min(4, block_x * block_c // 256)))


def can_run(call: ConvCall) -> str | None:
    """None, or why these kernels cannot run `call`."""
    channels = call.x.shape[1]
    if call.groups != channels or call.weight.shape[0] != channels:
        return f"groups is {call.groups} of {channels} channels to {call.weight.shape[0]}; it needs one to one"
    if math.prod(call.weight.shape[2:]) == 0:
        return f"the kernel {tuple(call.weight.shape[2:])} is empty"
    if call.out is not None and call.out.stride(1) != 1 and channels > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: ConvCall) -> Tensor:
    """activation(depthwise(x) + bias + residual)."""
    x = channels_last(call.x)
    out = empty_channels_last(x, call.out_shape) if call.out is None else call.out
    _launch(call, x, out, choose(call), transposed=False)
    return out


def data_gradient(call: ConvCall, grad: Tensor) -> Tensor:
    """Of x, from the gradient before the activation: each pixel gathers from the outputs that read it."""
    out = empty_channels_last(call.x, tuple(call.x.shape))
    plain = ConvCall(grad, call.weight, None, None, call.window, call.groups)
    _launch(plain, channels_last(grad), out, _config(out.shape[1], out.shape[-1], 1), transposed=True)
    return out


def _launch(call: ConvCall, x: Tensor, out: Tensor, config: Config, *, transposed: bool) -> None:
    channels, window, size = x.shape[1], call.window, run.axes3(out.shape[2:], 1)
    residual = None if call.residual is None else channels_last(call.residual)
    before = run.axes3([p for p, _ in window.padding], 0)
    named = {
        "KERNEL": run.axes3(call.weight.shape[2:], 1),
        "STRIDE": run.axes3(window.stride, 1),
        "STEP": run.axes3(window.dilation, 1),
    }
    blocks = triton.cdiv(size[1], config.rows) * triton.cdiv(size[2], config.block_x)
    run.launch(
        _rows,
        (len(out) * size[0] * blocks, triton.cdiv(channels, config.block_c)),
        warps=config.warps,
        x=x,
        weight=call.weight.reshape(channels, -1).t().contiguous(),
        bias=call.bias,
        residual=residual,
        out=out,
        **run.sizes("size", x.shape[2:]),
        **run.sizes("out", size),
        **run.geometry("xs", x),
        **run.geometry("rs", residual),
        **run.geometry("os", out),
        **{f"before_{axis}": value for axis, value in zip("zyx", before, strict=True)},
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        CHANNELS=channels,
        **{f"{name}_{axis}": v for name, values in named.items() for axis, v in zip("ZYX", values, strict=True)},
        KIND=call.activation.name,
        TRANSPOSED=transposed,
        ROWS=config.rows,
        BLOCK_X=config.block_x,
        BLOCK_C=config.block_c,
        UNIT=run.unit(channels, x, out, residual),
        INDEX=run.index_type(x, out, residual),
    )


@triton.jit
def _program(out_z, out_y, out_x, ROWS: tl.constexpr, BLOCK_X: tl.constexpr):
    """This program's image, z, first y and first x."""
    blocks_x = tl.cdiv(out_x, BLOCK_X)
    blocks_y = tl.cdiv(out_y, ROWS)
    p = tl.program_id(0)
    return (
        p // (blocks_x * blocks_y * out_z),
        p // (blocks_x * blocks_y) % out_z,
        p // blocks_x % blocks_y * ROWS,
        p % blocks_x * BLOCK_X,
    )


@triton.jit
def _finish(acc, bias, residual, out, r_row, o_row, rs_x, os_x, xs, c, alpha, beta, end_x,
            KIND: tl.constexpr, UNIT: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """activation(acc + bias + residual) to one row of `out`, up to its end."""
    mask = (xs < end_x)[:, None] & (c < CHANNELS)[None, :]
    if bias is not None:
        acc += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        at = tl.multiple_of(r_row + xs * rs_x, UNIT)
        acc += tl.load(residual + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    at = tl.multiple_of(o_row + xs * os_x, UNIT)
    y = activate(acc, KIND, alpha, beta)
    tl.store(out + at[:, None] + c[None, :], y.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _add(acc, value, weight, tap, kx, c, in_c, CHANNELS: tl.constexpr, TAPS: tl.constexpr, WIDE: tl.constexpr):
    """acc plus value times the weights of kernel row `tap`, if there is such a row."""
    mask = c < tl.where((tap >= 0) & (tap < TAPS), CHANNELS, 0)
    w = tl.load(weight + (tap * WIDE + kx) * CHANNELS + c, mask=mask, other=0.0)
    return acc + value * w.to(tl.float32)[None, :]


@triton.jit
def _tap(acc0, acc1, acc2, acc3, x, weight, start, xs, row, kx, c, in_c, xs_x, before_x, end_x,
         CHANNELS: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, STRIDE_X: tl.constexpr,
         STEP_X: tl.constexpr, TRANSPOSED: tl.constexpr, ROWS: tl.constexpr, UNIT: tl.constexpr):  # fmt: skip
    """One load of x, added to each row that reads it."""
    xi, in_x = source(xs, kx, STRIDE_X, STEP_X, before_x, end_x, TRANSPOSED)
    at = tl.multiple_of(start + xi * xs_x, UNIT)
    value = tl.load(x + at[:, None] + c[None, :], mask=in_x[:, None] & in_c[None, :], other=0.0).to(tl.float32)
    acc0 = _add(acc0, value, weight, row, kx, c, in_c, CHANNELS, KERNEL_Y, KERNEL_X)
    if ROWS > 1:
        acc1 = _add(acc1, value, weight, row - 1, kx, c, in_c, CHANNELS, KERNEL_Y, KERNEL_X)
    if ROWS > 2:
        acc2 = _add(acc2, value, weight, row - 2, kx, c, in_c, CHANNELS, KERNEL_Y, KERNEL_X)
        acc3 = _add(acc3, value, weight, row - 3, kx, c, in_c, CHANNELS, KERNEL_Y, KERNEL_X)
    return acc0, acc1, acc2, acc3


@triton.jit
def _rows(x, weight, bias, residual, out, size_z, size_y, size_x, out_z, out_y, out_x,
          xs_n, xs_z, xs_y, xs_x, rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x,
          before_z, before_y, before_x, alpha, beta,
          CHANNELS: tl.constexpr, KERNEL_Z: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
          STRIDE_Z: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
          STEP_Z: tl.constexpr, STEP_Y: tl.constexpr, STEP_X: tl.constexpr, KIND: tl.constexpr,
          TRANSPOSED: tl.constexpr, ROWS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
          UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """1, 2 or 4 output rows at once, of which neighbours read the same input rows where stride and dilation agree.

    TRANSPOSED: x is the gradient of the output, `out` that of the input. A loop over the rows of the kernel: unrolled,
    7x7 and more spilled hundreds of registers.
    """
    tl.static_assert((ROWS == 1) | (ROWS == 2) | (ROWS == 4), "1, 2 or 4 rows")
    tl.static_assert((ROWS == 1) | ((STRIDE_Y == STEP_Y) & (not TRANSPOSED)), "rows that share no inputs")
    n, z, y, x0 = _program(out_z, out_y, out_x, ROWS, BLOCK_X)
    n, z, y = n.to(INDEX), z.to(INDEX), y.to(INDEX)
    xs = (x0 + tl.arange(0, BLOCK_X)).to(INDEX)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    acc0 = tl.zeros((BLOCK_X, BLOCK_C), tl.float32)
    acc1 = acc0
    acc2 = acc0
    acc3 = acc0
    LINES: tl.constexpr = KERNEL_Y + ROWS - 1
    for line in range(KERNEL_Z * LINES):
        kz, row = line // LINES, line % LINES
        zi, in_z = source(z, kz, STRIDE_Z, STEP_Z, before_z, size_z, TRANSPOSED)
        yi, in_y = source(y, row, STRIDE_Y, STEP_Y, before_y, size_y, TRANSPOSED)
        start = n * xs_n + zi * xs_z + yi * xs_y
        end_x = tl.where(in_z & in_y, size_x, 0)
        plane = weight + kz * KERNEL_Y * KERNEL_X * CHANNELS
        if KERNEL_X <= 9:
            for kx in tl.static_range(KERNEL_X):
                acc0, acc1, acc2, acc3 = _tap(
                    acc0, acc1, acc2, acc3, x, plane, start, xs, row, kx, c, in_c, xs_x, before_x, end_x,
                    CHANNELS, KERNEL_Y, KERNEL_X, STRIDE_X, STEP_X, TRANSPOSED, ROWS, UNIT)  # fmt: skip
        else:
            for kx in range(KERNEL_X):
                acc0, acc1, acc2, acc3 = _tap(
                    acc0, acc1, acc2, acc3, x, plane, start, xs, row, kx, c, in_c, xs_x, before_x, end_x,
                    CHANNELS, KERNEL_Y, KERNEL_X, STRIDE_X, STEP_X, TRANSPOSED, ROWS, UNIT)  # fmt: skip
    r_row = n * rs_n + z * rs_z + y * rs_y
    o_row = n * os_n + z * os_z + y * os_y
    _finish(acc0, bias, residual, out, r_row, o_row, rs_x, os_x, xs, c, alpha, beta, out_x, KIND, UNIT, CHANNELS)
    if ROWS > 1:
        _finish(acc1, bias, residual, out, r_row + rs_y, o_row + os_y, rs_x, os_x, xs, c, alpha, beta,
                tl.where(y + 1 < out_y, out_x, 0), KIND, UNIT, CHANNELS)  # fmt: skip
    if ROWS > 2:
        _finish(acc2, bias, residual, out, r_row + 2 * rs_y, o_row + 2 * os_y, rs_x, os_x, xs, c, alpha, beta,
                tl.where(y + 2 < out_y, out_x, 0), KIND, UNIT, CHANNELS)  # fmt: skip
        _finish(acc3, bias, residual, out, r_row + 3 * rs_y, o_row + 3 * os_y, rs_x, os_x, xs, c, alpha, beta,
                tl.where(y + 3 < out_y, out_x, 0), KIND, UNIT, CHANNELS)  # fmt: skip
