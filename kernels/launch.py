"""How kernels are launched, and how a test learns what would be launched on a GPU that is not there."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """One kernel with its grid and arguments: all that its compilation depends on."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    warps: int
    stages: int


_recorder: ContextVar[tuple[int, list[Launch]] | None] = ContextVar("recorder", default=None)


@contextlib.contextmanager
def recording(capability: int) -> Iterator[list[Launch]]:
    """Launches are listed instead of run, and configured for a chip of `capability` (90: sm_90)."""
    launches: list[Launch] = []
    token = _recorder.set((capability, launches))
    try:
        yield launches
    finally:
        _recorder.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], *, warps: int = 4, stages: int = 2, **arguments: Any) -> None:
    """Run `kernel` on the device of its first tensor; nothing where the grid is empty."""
    if 0 in grid:
        return
    recorder = _recorder.get()
    if recorder is not None:
        recorder[1].append(Launch(kernel, grid, arguments, warps, stages))
        return
    first = next(a for a in arguments.values() if isinstance(a, Tensor))
    with torch.cuda.device_of(first):
        kernel[grid](**arguments, num_warps=warps, num_stages=stages, enable_fp_fusion=True)


def capability(x: Tensor) -> int:
    """Of the device of `x`: 80, 90, 100; where it has none (the interpreter), 80."""
    recorder = _recorder.get()
    if recorder is not None:
        return recorder[0]
    if not x.is_cuda:
        return 80
    major, minor = torch.cuda.get_device_capability(x.device)
    return 10 * major + minor


def gpu() -> str:
    """The current GPU as a file name: nvidia-h200; sm_90 for recorded launches, "interpreter" where there is none."""
    recorder = _recorder.get()
    if recorder is not None:
        return f"sm_{recorder[0]}"
    return _gpu_name(torch.cuda.current_device()) if torch.cuda.is_available() else "interpreter"


@functools.cache
def _gpu_name(device: int) -> str:
    return re.sub("[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def multiprocessors(x: Tensor) -> int:
    """Of the device of `x`; where it has none, 2."""
    recorder = _recorder.get()
    if recorder is not None:
        return {80: 108, 90: 132, 100: 148}[recorder[0]]
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def precision(x: Tensor) -> str:
    """Of products of float32: tf32 only where torch.set_float32_matmul_precision asks for it."""
    asked = x.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if asked else "ieee"


def axes3(values: Sequence[int], missing: int) -> tuple[int, int, int]:
    """One to three values a spatial axis as those of z, y, x."""
    z, y, x = [missing] * (3 - len(values)) + list(values)
    return z, y, x


def geometry(prefix: str, x: Tensor | None) -> dict[str, int]:
    """The strides of (N, C, *spatial) as arguments: prefix_n, _z, _y, _x; 0 along axes that it lacks."""
    strides = (0, 0, 0, 0) if x is None else (x.stride(0), *axes3(x.stride()[2:], 0))
    return {f"{prefix}_{axis}": stride for axis, stride in zip("nzyx", strides, strict=True)}


def sizes(prefix: str, spatial: Sequence[int]) -> dict[str, int]:
    """The spatial size as arguments: prefix_z, _y, _x; 1 along axes that it lacks."""
    return {f"{prefix}_{axis}": size for axis, size in zip("zyx", axes3(spatial, 1), strict=True)}


def unit(channels: int, *tensors: Tensor | None) -> int:
    """The largest power of two up to 16 that divides all strides between pixels: what loads may be aligned to."""
    steps = [channels, *(s for t in tensors if t is not None for i, s in enumerate(t.stride()) if i != 1)]
    return min(16, *(step & -step for step in steps if step))


def index_type(*tensors: Tensor | None) -> tl.dtype:
    """int64 where an offset into one of the tensors, or a step that a mask drops, might not fit into int32."""
    spans = [sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors if t is not None]
    return tl.int64 if max(spans) >= 1 << 30 else tl.int32


def block(size: int, most: int, least: int = 1) -> int:
    """The power of two that covers `size`, from `least` to `most`."""
    return max(least, min(most, triton.next_power_of_2(max(size, 1))))
