"""window_accumulate: add a batch of weighted windows to an image, the sum of sliding-window inference.

It runs between the calls of a network, never inside a traced graph: a plain function, not a torch.library op.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops import gpu

Weights = Sequence[Tensor] | Tensor

logger = logging.getLogger(__name__)


def window_accumulate(
    out: Tensor,
    windows: Tensor,
    starts: Tensor,
    weights: Weights,
    *,
    floor: float = 0.0,
    implementation: str | None = None,
) -> Tensor:
    """Add `windows` to `out` in place, each times `weights`, where `starts` says; return `out`.

    Windows may overlap. Each element of `out` receives them in their order, whatever the number of threads.

    Args:
        out: (N, C, *spatial), 1 to 3 spatial axes, floating point.
        windows: (B, C, *window), cast to the dtype of `out`; channels first or channels last, strided or not.
        starts: (B, 1 + axes) int64 on the CPU: the image of each window and its first position along each axis.
        weights: one vector a spatial axis, whose outer product is raised to at least `floor`; or one tensor of
            shape `window`, and `floor` is not used.
        floor: the least weight.
        implementation: "native" (CPU, float32), "triton" (GPU) or "torch" (any device and dtype, gradients); None
            takes the first that can run.

    Raises:
        ValueError: shapes, dtypes or starts do not fit, or `implementation` cannot run on them.
    """
    _check(out, windows, starts, weights)
    for candidate in IMPLEMENTATIONS:
        if implementation not in (None, candidate.name):
            continue
        reason = candidate.refusal(out, windows)
        if reason is None:
            candidate.run(out, windows, starts, weights, floor)
            return out
        if implementation is not None:
            raise InputError(f"window_accumulate: implementation {implementation!r} cannot run: {reason}")
        logger.debug("window_accumulate: not %s: %s", candidate.name, reason)
    names = ", ".join(repr(candidate.name) for candidate in IMPLEMENTATIONS)
    raise InputError(f"window_accumulate: implementation is {implementation!r}: pass None or one of {names}")


def reference(out: Tensor, windows: Tensor, starts: Tensor, weights: Weights, *, floor: float = 0.0) -> Tensor:
    """The same sum as a new float64 tensor, in plain torch."""
    exact = weights.double() if isinstance(weights, Tensor) else [w.double() for w in weights]
    total = out.double().clone()
    _run_torch(total, windows.double(), starts, exact, floor)
    return total


def channels_are_last(tensor: Tensor) -> bool:
    """Whether (N, C, *spatial) holds the channels of a pixel together, and its x rows without gaps.

    False where one channel, or one pixel a row, makes both layouts the same.
    """
    channels, width = tensor.shape[1], tensor.shape[-1]
    together = tensor.stride(1) == 1 and tensor.stride(-1) == channels
    return channels > 1 and width > 1 and together


def _check(out: Tensor, windows: Tensor, starts: Tensor, weights: Weights) -> None:
    axes = out.dim() - 2
    if not 1 <= axes <= 3 or windows.dim() != out.dim() or windows.shape[1] != out.shape[1]:
        raise InputError(
            f"window_accumulate: windows {tuple(windows.shape)} do not fit out {tuple(out.shape)}: "
            "pass (B, C, *window) and (N, C, *spatial) with the same C and 1 to 3 spatial axes"
        )
    if not out.is_floating_point():
        raise InputError(f"window_accumulate: out has dtype {out.dtype}: pass a floating-point tensor")
    if starts.dtype != torch.int64 or starts.device.type != "cpu":
        raise InputError(f"window_accumulate: starts is {starts.dtype} on {starts.device}: pass int64, cpu")
    if starts.shape != (len(windows), axes + 1):
        raise InputError(
            f"window_accumulate: starts has shape {tuple(starts.shape)}: "
            f"pass ({len(windows)}, {axes + 1}), the image and the first positions of each window"
        )
    window = windows.shape[2:]
    given = weights.shape if isinstance(weights, Tensor) else [len(w) for w in weights]
    if tuple(given) != tuple(window):
        raise InputError(f"window_accumulate: weights are of size {tuple(given)}: pass {tuple(window)}")


# --- native: csrc/cpu/window_accumulate.cpp


def _native_refusal(out: Tensor, windows: Tensor) -> str | None:
    if out.device.type != "cpu" or windows.device.type != "cpu":
        return f"out is on {out.device} and windows on {windows.device}; it needs both on cpu"
    if out.dtype != torch.float32:
        return f"out is {out.dtype}; it needs torch.float32"
    if torch.is_grad_enabled() and (out.requires_grad or windows.requires_grad):
        return "gradients are recorded, and it has none; call under torch.no_grad()"
    if not (_rows_are_contiguous(out) or channels_are_last(out)):
        return f"out has strides {out.stride()}; it needs contiguous x rows, channels first or last"
    return None


def _run_native(out: Tensor, windows: Tensor, starts: Tensor, weights: Weights, floor: float) -> None:
    windows = windows.to(out.dtype)
    rows = _rows_are_contiguous(out)
    if not (rows and _rows_are_contiguous(windows)) and not (
        channels_are_last(out) and channels_are_last(windows)
    ):  # the one case of a copy: two layouts, or a stride along x
        windows = windows.contiguous() if rows else windows.movedim(1, -1).contiguous().movedim(-1, 1)
    vectors = [weights] if isinstance(weights, Tensor) else weights
    _C.window_accumulate(
        out=out.detach().numpy(),
        windows=windows.detach().numpy(),
        starts=starts.numpy(),
        weights=[vector.float().numpy() for vector in vectors],
        floor=torch.finfo().min if isinstance(weights, Tensor) else floor,
        nthreads=torch.get_num_threads(),
    )


def _rows_are_contiguous(tensor: Tensor) -> bool:
    return tensor.stride(-1) == 1 or tensor.shape[-1] == 1


# --- triton: kernels/window_accumulate.py


def _triton_refusal(out: Tensor, windows: Tensor) -> str | None:
    reason = gpu.tensor_refusal(out, windows)
    if reason is None and torch.is_grad_enabled() and (out.requires_grad or windows.requires_grad):
        return "gradients are recorded, and it has none; call under torch.no_grad()"
    return reason


def _run_triton(out: Tensor, windows: Tensor, starts: Tensor, weights: Weights, floor: float) -> None:
    check_starts(starts, out.shape, windows.shape)
    own = weights.to(out.device) if isinstance(weights, Tensor) else [w.float().to(out.device) for w in weights]
    gpu.triton_kernels("window_accumulate").launch(out, windows, starts, own, floor, last=channels_are_last(out))


# --- torch: any device and dtype, differentiable


def _torch_refusal(out: Tensor, windows: Tensor) -> str | None:
    return None


def _run_torch(out: Tensor, windows: Tensor, starts: Tensor, weights: Weights, floor: float) -> None:
    check_starts(starts, out.shape, windows.shape)
    if not isinstance(weights, Tensor):  # at least in their own precision, or in that of a float64 out
        vectors = [w.to(torch.promote_types(w.dtype, out.dtype)) for w in weights]
        weights = outer_product(vectors).clamp(min=floor)
    weight = weights.to(out)
    for window, (image, *start) in zip(windows, starts.tolist(), strict=True):
        box = tuple(slice(s, s + size) for s, size in zip(start, window.shape[1:], strict=True))
        out[(image, slice(None), *box)] += window.to(out) * weight


def check_starts(starts: Tensor, image: torch.Size, windows: torch.Size) -> None:
    """Raise InputError unless all windows lie inside (N, C, *spatial); the native code checks by itself."""
    if not len(starts):
        return
    room = [image[0] - 1, *(size - window for size, window in zip(image[2:], windows[2:], strict=True))]
    least, most = starts.amin(dim=0).tolist(), starts.amax(dim=0).tolist()
    if min(least) < 0 or any(m > r for m, r in zip(most, room, strict=True)):
        raise InputError(
            f"window_accumulate: starts reach from {least} to {most}, and windows of {tuple(windows[2:])} fit into "
            f"{tuple(image)} from {[0] * len(room)} to {room}: move the windows, or pad the image"
        )


def outer_product(vectors: Sequence[Tensor]) -> Tensor:
    """(len(v) for v in vectors): the product of one vector an axis, multiplied from the first to the last."""
    return reduce(lambda product, vector: product[..., None] * vector, vectors)


@dataclass(frozen=True)
class Implementation:
    """One way to compute the op: `refusal` gives the reason why it cannot run on these tensors, or None."""

    name: str
    refusal: Callable[[Tensor, Tensor], str | None]
    run: Callable[[Tensor, Tensor, Tensor, Weights, float], None]


IMPLEMENTATIONS = (
    Implementation("native", _native_refusal, _run_native),
    Implementation("triton", _triton_refusal, _run_triton),
    Implementation("torch", _torch_refusal, _run_torch),
)
