"""A 1x1, a depthwise and a 1x1 convolution in one kernel: an inverted bottleneck, whose wide results stay on the chip.

A tile of outputs needs the expanded values of its box of inputs, shifted by every tap. Triton cannot index shared
memory, so a program writes them, some channels at a time, to a few kilobytes of its own in global memory. There are
only as many programs as run at once: what they write is overwritten in the L2 cache before it reaches memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.epilogue import activate
from fastnets.kernels.tile import store
from fastnets.kernels.tuned import tuned
from torch import Tensor

from fastnets.ops.inverted_bottleneck_packed import InvertedBottleneckCall
from fastnets.ops.layout import channels_last, empty_channels_last


@dataclass(frozen=True)
class Config:
    """A program's tile: `tile_y` x `tile_x` pixels by `block_n` outputs; `block_c` expanded channels at a time.

    block_p, block_k: positions and input channels of one product of the expansion.
    """

    tile_y: int
    tile_x: int
    block_n: int
    block_c: int
    block_p: int
    block_k: int
    warps: int


@tuned
def choose(call: InvertedBottleneckCall) -> Config:
    """A square of pixels: the least halo. Float32 runs without tensor cores. 4 warps spill. Not measured yet."""
    inputs, outputs = call.x.shape[1], call.project.shape[0]
    if call.x.dtype == torch.float32:
        return Config(8, 8, run.block(outputs, 64, 16), 16, 64, 16, 8)
    return Config(8, 8, run.block(outputs, 128, 16), 64, 64, run.block(inputs, 64, 16), 8)


def can_run(call: InvertedBottleneckCall) -> str | None:
    """None, or why this kernel cannot run `call`."""
    if 0 in (*call.expand.shape, *call.project.shape, *call.depthwise.shape):
        return "a weight is empty"
    if call.out is not None and call.out.stride(1) != 1 and call.out.shape[1] > 1:
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def launch(call: InvertedBottleneckCall) -> Tensor:
    """activation(project(middle(depthwise(first(expand(x) + bias)) + bias)) + bias + residual)."""
    x, config = channels_last(call.x), choose(call)
    out = empty_channels_last(x, call.out_shape) if call.out is None else call.out
    residual = None if call.residual is None else channels_last(call.residual)
    middle, inputs = call.expand.shape[:2]
    outputs, (kernel_y, kernel_x), (stride_y, stride_x) = out.shape[1], call.depthwise.shape[2:], call.window.stride
    box_y, box_x = (config.tile_y - 1) * stride_y + kernel_y, (config.tile_x - 1) * stride_x + kernel_x
    blocks_y, blocks_x = triton.cdiv(out.shape[2], config.tile_y), triton.cdiv(out.shape[3], config.tile_x)
    tiles, shares = len(out) * blocks_y * blocks_x, triton.cdiv(outputs, config.block_n)
    programs = min(tiles, max(1, run.multiprocessors(x) * (16 // config.warps) // shares))
    run.launch(
        _block,
        (programs, shares),
        warps=config.warps,
        stages=1,  # a pipeline would load from `scratch` before what it loads is written
        x=x,
        expand=call.expand.reshape(middle, inputs).t().contiguous(),
        depthwise=call.depthwise.reshape(middle, -1).t().contiguous(),
        project=call.project.reshape(outputs, middle).t().contiguous(),
        expand_bias=call.expand_bias,
        middle_bias=call.middle_bias,
        bias=call.bias,
        residual=residual,
        out=out,
        scratch=x.new_empty((programs * shares, box_y * box_x, config.block_c)),
        tiles=tiles,
        blocks_y=blocks_y,
        blocks_x=blocks_x,
        size_y=x.shape[2],
        size_x=x.shape[3],
        out_y=out.shape[2],
        out_x=out.shape[3],
        **{key: step for key, step in run.geometry("xs", x).items() if key != "xs_z"},
        **{key: step for key, step in run.geometry("rs", residual).items() if key != "rs_z"},
        **{key: step for key, step in run.geometry("os", out).items() if key != "os_z"},
        before_y=call.window.padding[0][0],
        before_x=call.window.padding[1][0],
        first_alpha=call.expand_activation.alpha,
        first_beta=call.expand_activation.beta,
        middle_alpha=call.middle_activation.alpha,
        middle_beta=call.middle_activation.beta,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        KERNEL_Y=kernel_y,
        KERNEL_X=kernel_x,
        STRIDE_Y=stride_y,
        STRIDE_X=stride_x,
        TILE_Y=config.tile_y,
        TILE_X=config.tile_x,
        BOX_Y=box_y,
        BOX_X=box_x,
        INPUTS=inputs,
        CHANNELS=middle,
        OUTPUTS=outputs,
        FIRST=call.expand_activation.name,
        MIDDLE=call.middle_activation.name,
        KIND=call.activation.name,
        PRECISION=run.precision(x),
        BLOCK_N=config.block_n,
        BLOCK_C=config.block_c,
        BLOCK_P=config.block_p,
        BLOCK_K=config.block_k,
        UNIT=run.unit(inputs, x),
        UNIT_OUT=run.unit(outputs, out, residual),
        INDEX=run.index_type(x, out, residual),
    )
    return out


@triton.jit
def _expand(x, expand, bias, own, c, y0, x0, size_y, size_x, xs_y, xs_x, alpha, beta,
            BOX: tl.constexpr, BOX_X: tl.constexpr, INPUTS: tl.constexpr, CHANNELS: tl.constexpr,
            FIRST: tl.constexpr, PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
            BLOCK_K: tl.constexpr, UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """The channels `c` of activation(expand(x) + bias) in a box of inputs, to `own`: 0 outside of the image."""
    in_c = c < CHANNELS
    for first in range(0, BOX, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        y, xi = y0 + p // BOX_X, x0 + p % BOX_X
        inside = (y >= 0) & (y < size_y) & (xi >= 0) & (xi < size_x) & (p < BOX)
        at = tl.multiple_of(y.to(INDEX) * xs_y + xi.to(INDEX) * xs_x, UNIT)
        acc = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
        for start in range(0, INPUTS, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            a = tl.load(x + at[:, None] + k[None, :], mask=inside[:, None] & (k < INPUTS)[None, :], other=0.0)
            mask = (k < INPUTS)[:, None] & in_c[None, :]
            b = tl.load(expand + k[:, None] * CHANNELS + c[None, :], mask=mask, other=0.0)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
        if bias is not None:
            acc += tl.load(bias + c, mask=in_c, other=0.0).to(tl.float32)[None, :]
        value = tl.where(inside[:, None], activate(acc, FIRST, alpha, beta), 0.0)
        to = own + p[:, None] * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
        tl.store(to, value.to(own.dtype.element_ty), mask=(p < BOX)[:, None])


@triton.jit
def _block(x, expand, depthwise, project, expand_bias, middle_bias, bias, residual, out, scratch, tiles,
           blocks_y, blocks_x, size_y, size_x, out_y, out_x, xs_n, xs_y, xs_x, rs_n, rs_y, rs_x, os_n, os_y, os_x,
           before_y, before_x, first_alpha, first_beta, middle_alpha, middle_beta, alpha, beta,
           KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
           TILE_Y: tl.constexpr, TILE_X: tl.constexpr, BOX_Y: tl.constexpr, BOX_X: tl.constexpr,
           INPUTS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, FIRST: tl.constexpr,
           MIDDLE: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
           BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, UNIT: tl.constexpr,
           UNIT_OUT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """Tiles in turn. The barriers part the writing of `scratch` from its reading, by other threads of the program."""
    BOX: tl.constexpr = BOX_Y * BOX_X
    BLOCK_M: tl.constexpr = TILE_Y * TILE_X
    slot = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    own = scratch + slot.to(tl.int64) * (BOX * BLOCK_C)
    co = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    my, mx = tl.arange(0, BLOCK_M) // TILE_X, tl.arange(0, BLOCK_M) % TILE_X
    corner = my * (STRIDE_Y * BOX_X) + mx * STRIDE_X
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        n = (tile // (blocks_x * blocks_y)).to(INDEX)
        y0, x0 = tile // blocks_x % blocks_y * TILE_Y, tile % blocks_x * TILE_X
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for first in range(0, CHANNELS, BLOCK_C):
            c = first + tl.arange(0, BLOCK_C)
            in_c = c < CHANNELS
            _expand(x + n * xs_n, expand, expand_bias, own, c, y0 * STRIDE_Y - before_y, x0 * STRIDE_X - before_x,
                    size_y, size_x, xs_y, xs_x, first_alpha, first_beta, BOX, BOX_X, INPUTS, CHANNELS, FIRST,
                    PRECISION, BLOCK_C, BLOCK_P, BLOCK_K, UNIT, INDEX)  # fmt: skip
            tl.debug_barrier()
            middle = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
            for ky in range(KERNEL_Y):
                for kx in tl.static_range(KERNEL_X):
                    at = (corner + ky * BOX_X + kx) * BLOCK_C
                    value = tl.load(own + at[:, None] + tl.arange(0, BLOCK_C)[None, :]).to(tl.float32)
                    w = tl.load(depthwise + (ky * KERNEL_X + kx) * CHANNELS + c, mask=in_c, other=0.0)
                    middle += value * w.to(tl.float32)[None, :]
            tl.debug_barrier()
            if middle_bias is not None:
                middle += tl.load(middle_bias + c, mask=in_c, other=0.0).to(tl.float32)[None, :]
            a = activate(middle, MIDDLE, middle_alpha, middle_beta).to(x.dtype.element_ty)
            inside = in_c[:, None] & (co < OUTPUTS)[None, :]
            b = tl.load(project + c[:, None] * OUTPUTS + co[None, :], mask=inside, other=0.0)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
        y, xo = (y0 + my).to(INDEX), (x0 + mx).to(INDEX)
        mask = ((y < out_y) & (xo < out_x))[:, None] & (co < OUTPUTS)[None, :]
        r_at = tl.multiple_of(n * rs_n + y * rs_y + xo * rs_x, UNIT_OUT)
        o_at = tl.multiple_of(n * os_n + y * os_y + xo * os_x, UNIT_OUT)
        store(acc, bias, residual, out, r_at, o_at, co, mask, alpha, beta, KIND, OUTPUTS)
