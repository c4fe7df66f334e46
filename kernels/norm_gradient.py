"""The gradients of a normalization by its own moments: sums over pixels, then one pass; its forward runs again."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import triton
import triton.language as tl
from fastnets.kernels import launch as run
from fastnets.kernels.epilogue import derivative
from fastnets.kernels.norm import choose, statistics
from fastnets.kernels.tile import positions
from torch import Tensor

from fastnets.ops.layout import channels_last, empty_channels_last
from fastnets.ops.norm import NormCall


def gradients(call: NormCall, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of x, weight, bias and residual (which is the gradient before the activation)."""
    x, grad = channels_last(call.x), channels_last(grad)
    residual = None if call.residual is None else channels_last(call.residual)
    batch, channels = x.shape[:2]
    size, groups = run.axes3(x.shape[2:], 1), call.groups
    pixels = math.prod(size)
    config = choose(batch, channels, pixels)
    table = statistics(replace(call, out=None), x, config)
    splits = triton.cdiv(pixels, config.pixels)
    partial = torch.empty((batch, splits, 2, channels), dtype=torch.float32, device=x.device)
    before, of_x = (empty_channels_last(x, tuple(x.shape)) for _ in range(2))
    common = {
        "x": x,
        "grad": grad,
        "table": table,
        "weight": call.weight,
        **run.sizes("size", size),
        **run.geometry("xs", x),
        **run.geometry("gs", grad),
        **run.geometry("os", before),
        "CHANNELS": channels,
        "BLOCK_P": config.block_p,
        "BLOCK_C": config.block_c,
        "UNIT": run.unit(channels, x, grad, residual, before),
        "INDEX": run.index_type(x, grad, residual, before),
    }
    run.launch(
        _sums,
        (splits, batch, triton.cdiv(channels, config.block_c)),
        warps=config.warps,
        **common,
        bias=call.bias,
        residual=residual,
        before=before,
        partial=partial,
        **run.geometry("rs", residual),
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        KIND=call.activation.name,
        SHARE=config.pixels,
    )
    sums = partial.double().sum(1)  # (N, 2, C): of the gradient, and of the gradient times normalized x
    scaled = sums if call.weight is None else sums * call.weight.double()
    means = scaled.unflatten(2, (groups, -1)).sum(-1) / (pixels * (channels // groups))
    if call.moments is not None:
        means = torch.zeros_like(means)  # the moments are not those of x
    means = means.repeat_interleave(channels // groups, dim=2).float().contiguous()
    run.launch(
        _apply,
        (triton.cdiv(pixels, config.block_p) * batch, triton.cdiv(channels, config.block_c)),
        warps=config.warps,
        **{**common, "grad": before, **run.geometry("gs", before)},
        means=means,
        out=of_x,
    )
    of_bias, of_weight = sums.sum(0).to(x.dtype).unbind(0)
    return of_x, of_weight, of_bias, before


@triton.jit
def _sums(x, grad, table, weight, bias, residual, before, partial, size_z, size_y, size_x,
          xs_n, xs_z, xs_y, xs_x, gs_n, gs_z, gs_y, gs_x, rs_n, rs_z, rs_y, rs_x, os_n, os_z, os_y, os_x, alpha, beta,
          CHANNELS: tl.constexpr, KIND: tl.constexpr, SHARE: tl.constexpr, BLOCK_P: tl.constexpr,
          BLOCK_C: tl.constexpr, UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """partial[n, split] = sums of the gradient before the activation and of it times normalized x; writes the first."""
    split, n = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    table += n * 3 * CHANNELS
    high = tl.load(table + c, mask=in_c, other=0.0)
    low = tl.load(table + CHANNELS + c, mask=in_c, other=0.0)
    scale = tl.load(table + 2 * CHANNELS + c, mask=in_c, other=0.0)
    w = tl.zeros((BLOCK_C,), tl.float32) + 1
    if weight is not None:
        w = tl.load(weight + c, mask=in_c, other=0.0).to(tl.float32)
    shift = tl.zeros((BLOCK_C,), tl.float32)
    if bias is not None:
        shift = tl.load(bias + c, mask=in_c, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    times = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    image = n.to(INDEX)
    end = tl.minimum((split + 1) * SHARE, size_z * size_y * size_x)
    for start in range(split * SHARE, end, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        _, z, y, xo = positions(pixel, size_z, size_y, size_x, INDEX)
        mask = (pixel < end)[:, None] & in_c[None, :]
        at = tl.multiple_of(image * xs_n + z * xs_z + y * xs_y + xo * xs_x, UNIT)
        value = tl.load(x + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
        at = tl.multiple_of(image * gs_n + z * gs_z + y * gs_y + xo * gs_x, UNIT)
        g = tl.load(grad + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
        normal = (value - high[None, :] - low[None, :]) * scale[None, :]
        if KIND != "none":
            pre = normal * w[None, :] + shift[None, :]
            if residual is not None:
                at = tl.multiple_of(image * rs_n + z * rs_z + y * rs_y + xo * rs_x, UNIT)
                pre += tl.load(residual + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
            g *= derivative(pre, KIND, alpha, beta)
        at = tl.multiple_of(image * os_n + z * os_z + y * os_y + xo * os_x, UNIT)
        tl.store(before + at[:, None] + c[None, :], g.to(before.dtype.element_ty), mask=mask)
        total += g
        times += g * normal
    partial += (n * tl.num_programs(0) + split) * 2 * CHANNELS
    tl.store(partial + c, tl.sum(total, axis=0), mask=in_c)
    tl.store(partial + CHANNELS + c, tl.sum(times, axis=0), mask=in_c)


@triton.jit
def _apply(x, grad, table, weight, means, out, size_z, size_y, size_x, xs_n, xs_z, xs_y, xs_x,
           gs_n, gs_z, gs_y, gs_x, os_n, os_z, os_y, os_x, CHANNELS: tl.constexpr,
           BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, UNIT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """The gradient of x: what the group's mean and variance take away from grad * weight."""
    pixels = size_z * size_y * size_x
    blocks = tl.cdiv(pixels, BLOCK_P)
    n = tl.program_id(0) // blocks
    image = n.to(INDEX)
    pixel = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < CHANNELS
    _, z, y, xo = positions(pixel, size_z, size_y, size_x, INDEX)
    mask = (pixel < pixels)[:, None] & in_c[None, :]
    at = tl.multiple_of(image * xs_n + z * xs_z + y * xs_y + xo * xs_x, UNIT)
    value = tl.load(x + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    at = tl.multiple_of(image * gs_n + z * gs_z + y * gs_y + xo * gs_x, UNIT)
    g = tl.load(grad + at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    if weight is not None:
        g *= tl.load(weight + c, mask=in_c, other=0.0).to(tl.float32)[None, :]
    table += n * 3 * CHANNELS
    means += n * 2 * CHANNELS
    high = tl.load(table + c, mask=in_c, other=0.0)
    low = tl.load(table + CHANNELS + c, mask=in_c, other=0.0)
    scale = tl.load(table + 2 * CHANNELS + c, mask=in_c, other=0.0)
    mean = tl.load(means + c, mask=in_c, other=0.0)
    along = tl.load(means + CHANNELS + c, mask=in_c, other=0.0)
    normal = (value - high[None, :] - low[None, :]) * scale[None, :]
    of_x = (g - mean[None, :] - normal * along[None, :]) * scale[None, :]
    at = tl.multiple_of(image * os_n + z * os_z + y * os_y + xo * os_x, UNIT)
    tl.store(out + at[:, None] + c[None, :], of_x.to(out.dtype.element_ty), mask=mask)
