"""window_gather: copy boxes of images into a batch of windows."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnets import _C


def window_gather(windows: Tensor, image: Tensor, starts: Tensor) -> Tensor:
    """Fill `windows` with the boxes of `image` that begin at `starts`; return `windows`.

    One call of the native code for tensors on the CPU, of any dtype, without gradients and in one layout,
    channels first or last; else a copy a window.

    Args:
        windows: (B, C, *window), 1 to 3 spatial axes.
        image: (N, C, *spatial).
        starts: (B, 1 + axes) int64 on the CPU: the image of each window and its first position along each axis.

    Raises:
        ValueError: shapes or starts do not fit.
    """
    if _native_refusal(windows, image) is None:
        raw = torch.int16 if image.dtype == torch.bfloat16 else image.dtype  # NumPy has no bfloat16
        _C.window_gather(
            windows=windows.view(raw).numpy(),
            image=image.view(raw).numpy(),
            starts=starts.numpy(),
            nthreads=torch.get_num_threads(),
        )
        return windows
    return reference(windows, image, starts)


def reference(windows: Tensor, image: Tensor, starts: Tensor) -> Tensor:
    """The same in plain torch, on any device."""
    for i, (number, *start) in enumerate(starts.tolist()):
        box = tuple(slice(s, s + size) for s, size in zip(start, windows.shape[2:], strict=True))
        windows[i] = image[(number, slice(None), *box)]
    return windows


def _native_refusal(windows: Tensor, image: Tensor) -> str | None:
    if windows.device.type != "cpu" or image.device.type != "cpu":
        return f"windows is on {windows.device} and image on {image.device}; it needs both on cpu"
    if windows.dtype != image.dtype:
        return f"windows is {windows.dtype} and image {image.dtype}; it needs one dtype"
    if windows.requires_grad or image.requires_grad:
        return "gradients are recorded, and it has none"
    if not (_one_layout(windows, image)):
        return "windows and image have no contiguous rows in one layout"
    return None


def _one_layout(*tensors: Tensor) -> bool:
    """All have contiguous x rows of one channel, or all of whole pixels."""
    return all(t.stride(-1) == 1 for t in tensors) or all(
        t.stride(1) == 1 and t.stride(-1) == t.shape[1] for t in tensors
    )
