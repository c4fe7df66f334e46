"""What kernels share whose programs own a tile of pixels x channels, pixels in the order of n, z, y, x."""

import triton
import triton.language as tl
from fastnets.kernels.epilogue import activate


@triton.jit
def source(position, k, STRIDE: tl.constexpr, STEP: tl.constexpr, before, size, TRANSPOSED: tl.constexpr):
    """Where tap k reads for an output position, and whether there is anything."""
    if TRANSPOSED:
        at = position + before - k * STEP
        return at // STRIDE, (at >= 0) & (at % STRIDE == 0) & (at // STRIDE < size)
    else:
        at = position * STRIDE - before + k * STEP
        return at, (at >= 0) & (at < size)


@triton.jit
def positions(pixel, out_z, out_y, out_x, INDEX: tl.constexpr):
    """n, z, y, x of pixels by their numbers."""
    line = pixel // out_x
    plane = line // out_y
    n = plane // out_z
    return n.to(INDEX), (plane % out_z).to(INDEX), (line % out_y).to(INDEX), (pixel % out_x).to(INDEX)


@triton.jit
def store(acc, bias, residual, out, r_at, o_at, c, mask, alpha, beta, KIND: tl.constexpr, CHANNELS: tl.constexpr):
    """activation(acc + bias + residual) to the pixels at `o_at` and the channels `c` of `out`.

    What divides `r_at` and `o_at` is for the caller to say: Triton forgets it of arguments.
    """
    if bias is not None:
        acc += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        acc += tl.load(residual + r_at[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    y = activate(acc, KIND, alpha, beta)
    tl.store(out + o_at[:, None] + c[None, :], y.to(out.dtype.element_ty), mask=mask)
