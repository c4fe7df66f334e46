"""Implementations by the Triton kernels of fastnets.kernels, which are imported when first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fastnets.ops.registry import Implementation

Gradient = Callable[[Any, Tensor], Tensor]
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def triton_implementation(module: str, name: str = "triton") -> Implementation[Any]:
    """The implementation by fastnets.kernels.<module>, which has can_run(call) and launch(call)."""

    def can_run(call: Any) -> str | None:
        reason: str | None = refusal(call) or triton_kernels(module).can_run(call)
        return reason

    def run(call: Any) -> Any:
        return triton_kernels(module).launch(call)

    return Implementation(name, can_run, run)


def triton_kernels(module: str) -> Any:
    """fastnets.kernels.<module>, imported when first asked for: Triton may not be installed."""
    return import_module(f"fastnets.kernels.{module}")


def triton_gradients(name: str) -> tuple[Gradient, Gradient] | None:
    """The gradients of x and weight by the kernels of the convolution `name`, if it is one by Triton."""
    modules = {"triton_depthwise": ("depthwise", "depthwise_weight"), "triton_product": ("conv", "conv_weight")}
    if name not in modules:
        return None
    data, weight = (triton_kernels(module) for module in modules[name])
    return data.data_gradient, weight.weight_gradient


def refusal(call: Any) -> str | None:
    """Why no Triton kernel can take the tensors of `call`: device, dtype, or no Triton."""
    return tensor_refusal(*(t for f in fields(call) if isinstance(t := getattr(call, f.name), Tensor)))


def tensor_refusal(x: Tensor, *others: Tensor) -> str | None:
    """The same for tensors."""
    for other in others:
        if other.device != x.device:
            return f"arguments are on {x.device} and {other.device}; it needs one device"
    if not x.is_cuda and not (x.device.type == "cpu" and interpreted()):
        return f"x is on {x.device}; it needs a CUDA device"
    if x.dtype not in _DTYPES:
        return f"x is {x.dtype}; it needs torch.float32, float16 or bfloat16"
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 0):
        return f"{torch.cuda.get_device_name(x.device)} is older than compute capability 8.0"
    if find_spec("triton") is None:
        return "triton is not installed: pip install 'triton>=3.6'"
    return None


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python on the CPU: how tests check their values."""
    return os.environ.get("TRITON_INTERPRET") == "1"
