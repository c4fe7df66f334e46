"""The activations of fastnets.ops.epilogue inside kernels, and their derivatives: float32 in, float32 out."""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    small = tl.exp(-2 * tl.abs(x))
    y = (1 - small) / (1 + small)
    return tl.where(x < 0, -y, y)


@triton.jit
def activate(x, KIND: tl.constexpr, alpha, beta):
    """KIND of x. Comparisons, not tl.maximum: NaN stays NaN."""
    if KIND == "relu":
        x = tl.where(x < 0, 0.0, x)
    elif KIND == "relu6":
        x = tl.where(x < 0, 0.0, tl.where(x > 6, 6.0, x))
    elif KIND == "clamp":
        x = tl.where(x > beta, beta, tl.where(x < alpha, alpha, x))
    elif KIND == "leaky":
        x = tl.where(x < 0, alpha * x, x)
    elif KIND == "elu":
        x = tl.where(x < 0, alpha * (tl.exp(tl.where(x < 0, x, 0.0)) - 1), x)
    elif KIND == "silu":
        x = x / (1 + tl.exp(-x))
    elif KIND == "hardswish":
        x = x * activate(x + 3, "relu6", alpha, beta) / 6
    elif KIND == "hardsigmoid":
        x = activate(x + 3, "relu6", alpha, beta) / 6
    elif KIND == "sigmoid":
        x = 1 / (1 + tl.exp(-x))
    elif KIND == "tanh":
        x = _tanh(x)
    elif KIND == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        x = 0.5 * x * (1 + _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    else:
        tl.static_assert(KIND == "none", "an activation that this kernel does not know")
    return x


@triton.jit
def derivative(x, KIND: tl.constexpr, alpha, beta):
    """d KIND / dx at x, where torch puts it at the corners."""
    if KIND == "none":
        y = x * 0 + 1
    elif KIND == "relu":
        y = tl.where(x > 0, 1.0, 0.0)
    elif KIND == "relu6":
        y = tl.where((x > 0) & (x < 6), 1.0, 0.0)
    elif KIND == "clamp":
        y = tl.where((x >= alpha) & (x <= beta), 1.0, 0.0)
    elif KIND == "leaky":
        y = tl.where(x > 0, 1.0, alpha)
    elif KIND == "elu":
        y = tl.where(x > 0, 1.0, alpha * tl.exp(tl.where(x < 0, x, 0.0)))
    elif KIND == "silu":
        s = 1 / (1 + tl.exp(-x))
        y = s * (1 + x * (1 - s))
    elif KIND == "hardswish":
        y = tl.where(x <= -3, 0.0, tl.where(x < 3, x / 3 + 0.5, 1.0))
    elif KIND == "hardsigmoid":
        y = tl.where((x > -3) & (x < 3), 1.0 / 6, 0.0)
    elif KIND == "sigmoid":
        s = 1 / (1 + tl.exp(-x))
        y = s * (1 - s)
    elif KIND == "tanh":
        t = _tanh(x)
        y = 1 - t * t
    elif KIND == "gelu":
        y = 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif KIND == "gelu_tanh":
        t = _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))
        y = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 0.134145 * x * x)
    else:
        tl.static_assert(False, "an activation whose derivative this kernel does not know")
    return y
