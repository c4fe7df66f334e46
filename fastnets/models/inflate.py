"""Weights of a 2D network for its 3D form."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastnets.errors import InputError


def inflate_weights(state: dict[str, Tensor], *, rule: Literal["i3d", "centre"] = "i3d") -> dict[str, Tensor]:
    """The state_dict of a 2D network → that of its 3D form (`create_model(…, dims=3)`): new tensors, same names.

    Every kernel (O, I, rows, columns) becomes (O, I, rows, rows, columns), after the rule of
    `fastnets.models.layers`; biases, norms and linear layers stay as they are.

    rule: "i3d" copies a kernel along depth and divides it by the copies, so that it averages over slices;
        "centre" puts it into the middle slice between zeros, so that at first each slice is seen alone.

    On a volume that is constant along depth both give the 2D network's output: "centre" exactly, "i3d" where no
    kernel reaches past the first or last slice, since the zeros there are not the volume's constant.

    Raises InputError for another rule, and for a state with kernels that are 3D already.

    Papers: Carreira, Zisserman, "Quo Vadis, Action Recognition?" (I3D, CVPR 2017); the centre rule is that of
    Girdhar et al., "Detect-and-Track" (CVPR 2018).
    """
    if rule not in ("i3d", "centre"):
        raise InputError(f"inflate_weights: rule={rule!r} is not known: pass 'i3d' or 'centre'")
    return {name: _inflate(name, value, rule) for name, value in state.items()}


def _inflate(name: str, value: Tensor, rule: str) -> Tensor:
    if value.ndim == 5:
        raise InputError(
            f"inflate_weights: {name} has shape {tuple(value.shape)}, 3D already: pass a 2D network's state"
        )
    if value.ndim == 3:  # the gain or bias of a map (C, 1, 1), or partial connections (connections, rows, columns)
        return value[:, None].clone() if value.shape[1:] == (1, 1) else _deepen(value, rule)
    return _deepen(value, rule) if value.ndim == 4 else value.clone()


def _deepen(kernel: Tensor, rule: str) -> Tensor:
    """(…, rows, columns) → (…, rows, rows, columns)."""
    depth = kernel.shape[-2]
    kernel = kernel.unsqueeze(-3)
    if rule == "i3d":
        return kernel.repeat_interleave(depth, dim=-3) / depth
    zeros = torch.zeros_like(kernel).repeat_interleave(depth, dim=-3)
    zeros[..., depth // 2, :, :] = kernel[..., 0, :, :]
    return zeros
