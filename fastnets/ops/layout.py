"""Channels-last tensors of 1, 2 or 3 spatial axes, and their view with 3 that the kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Elements = np.float32 | np.uint16

KERNEL_DTYPES = (torch.float32, torch.bfloat16)
"""What a tensor of a kernel may hold; kernels compute in float32."""


def channels_are_dense(x: Tensor) -> bool:
    """Whether the channels of each pixel lie together: what kernels ask of a tensor. Its pixels may lie anywhere."""
    return together(x, 1)


def together(x: Tensor, axis: int) -> bool:
    """Whether the elements of `x` along `axis` lie together."""
    return x.shape[axis] == 1 or x.stride(axis) == 1


def channels_last(x: Tensor) -> Tensor:
    """`x` itself if the channels of each pixel lie together, else a channels-last copy."""
    return x if channels_are_dense(x) else x.movedim(1, -1).contiguous().movedim(-1, 1)


def empty_channels_last(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An uninitialised channels-last tensor (N, C, *spatial) with the dtype and device of `like`."""
    batch, channels, *spatial = shape
    return like.new_empty((batch, *spatial, channels)).movedim(-1, 1)


def array_of(x: Tensor) -> NDArray[Elements]:
    """The memory of `x`; bfloat16, which NumPy lacks, as the uint16 that kernels take for it."""
    x = x.detach()
    array: NDArray[Elements] = (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
    return array


def array5(x: Tensor) -> NDArray[Elements]:
    """(N, C, *spatial) as the array (N, C, z, y, x) that shares its memory; missing axes have size 1."""
    return array_of(x[(slice(None), slice(None), *(None,) * (5 - x.dim()))])


def matrices5(x: Tensor) -> NDArray[Elements]:
    """(*batch, rows, columns) as the array of five axes that shares its memory; missing axes of batch have size 1."""
    return array_of(x[(*(None,) * (5 - x.dim()), ...)])


def floats_of(values: Tensor | None) -> NDArray[np.float32] | None:
    """A vector as the contiguous float32 that kernels take for what goes with channels; None stays None."""
    return None if values is None else values.detach().float().contiguous().numpy()


def threads() -> int:
    """How many threads a kernel may use: torch's setting."""
    return torch.get_num_threads()
