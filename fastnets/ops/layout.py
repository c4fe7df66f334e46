"""Channels-last tensors of 1, 2 or 3 spatial axes, and their view with 3 that the kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def channels_are_dense(x: Tensor) -> bool:
    """Whether the channels of each pixel lie together: what kernels ask of a tensor. Its pixels may lie anywhere."""
    return x.shape[1] == 1 or x.stride(1) == 1


def channels_last(x: Tensor) -> Tensor:
    """`x` itself if the channels of each pixel lie together, else a channels-last copy."""
    return x if channels_are_dense(x) else x.movedim(1, -1).contiguous().movedim(-1, 1)


def empty_channels_last(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An uninitialised channels-last tensor (N, C, *spatial) with the dtype and device of `like`."""
    batch, channels, *spatial = shape
    return like.new_empty((batch, *spatial, channels)).movedim(-1, 1)


def array5(x: Tensor) -> NDArray[np.float32]:
    """(N, C, *spatial) as the array (N, C, z, y, x) that shares its memory; missing axes have size 1."""
    missing = 5 - x.dim()
    view: NDArray[np.float32] = x.detach()[(slice(None), slice(None), *(None,) * missing)].numpy()
    return view


def threads() -> int:
    """How many threads a kernel may use: torch's setting."""
    return torch.get_num_threads()
