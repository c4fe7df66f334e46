"""The compiled kernels: csrc/ops/<op>.cpp registers each one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Elements = NDArray[np.float32 | np.uint16]  # uint16 stands for bfloat16

def active_isa() -> str: ...
def is_intel() -> bool: ...
def assume_intel(intel: bool) -> None: ...
def available_isas() -> list[str]: ...
def openmp_is_awake(nthreads: int) -> bool: ...
def conv_lanes() -> int: ...
def conv_rate(bf16: bool) -> int: ...
def conv_steps(bf16: bool) -> int: ...
def has_tiles() -> bool: ...

class PackedConv:
    def __init__(
        self, weight: _Elements, groups: int, algorithm: str, tile: tuple[int, int, int], taps: bool, nthreads: int
    ) -> None: ...
    @property
    def bytes(self) -> int: ...
    def run(
        self,
        x: _Elements,
        out: _Elements | None,
        maxima: _Elements | None,
        size: tuple[int, int, int],
        stride: tuple[int, int, int],
        pad: tuple[int, int, int],
        dilation: tuple[int, int, int],
        scale: _Floats | None,
        shift: _Floats | None,
        residual: _Elements | None,
        activation: int,
        alpha: float,
        beta: float,
        moments: NDArray[np.float64] | None,
        block: int,
        share: bool,
        stream: bool,
        nthreads: int,
    ) -> None: ...

class PackedSeparable:
    def __init__(self, depthwise: _Elements, pointwise: _Elements, nthreads: int) -> None: ...
    @property
    def bytes(self) -> int: ...
    def run(
        self,
        x: _Elements,
        out: _Elements,
        stride: tuple[int, int, int],
        pad: tuple[int, int, int],
        dilation: tuple[int, int, int],
        between: tuple[_Floats | None, _Floats | None, int, float, float],
        after: tuple[_Floats | None, _Floats | None, int, float, float],
        residual: _Elements | None,
        block: int,
        strassen: bool,
        stream: bool,
        nthreads: int,
    ) -> None: ...

class PackedInvertedBottleneck:
    def __init__(self, expand: _Elements, depthwise: _Elements, project: _Elements, nthreads: int) -> None: ...
    @property
    def bytes(self) -> int: ...
    def run(
        self,
        x: _Elements,
        out: _Elements,
        stride: tuple[int, int],
        pad: tuple[int, int],
        before: tuple[_Floats | None, int, float, float],
        between: tuple[_Floats | None, int, float, float],
        after: tuple[_Floats | None, int, float, float],
        residual: _Elements | None,
        stream: bool,
        nthreads: int,
    ) -> None: ...

def peak_flops(nthreads: int, bf16: bool = False) -> float: ...
def round_trip() -> float: ...

class Plan:
    def __init__(self, memory: list[tuple[int, int, bool]]) -> None: ...
    def __enter__(self) -> Plan: ...
    def __exit__(self, *args: object) -> None: ...
    def __len__(self) -> int: ...
    def scratch(self, nthreads: int) -> int: ...
    def run(self, externals: list[int], nthreads: int) -> None: ...
    def profile(self, externals: list[int], nthreads: int) -> NDArray[np.float64]: ...

def pointwise(
    x: _Elements,
    out: _Elements,
    scale: _Floats | None,
    shift: _Floats | None,
    residual: _Elements | None,
    activation: int,
    alpha: float,
    beta: float,
    nthreads: int,
) -> None: ...
def pool(
    x: _Elements,
    out: _Elements,
    window: list[int],
    stride: list[int],
    pad: list[int],
    dilation: list[int],
    average: bool,
    count_pad: bool,
    divisor: float,
    adaptive: bool,
    nthreads: int,
) -> None: ...
def resize(
    x: _Elements,
    out: _Elements,
    low: list[NDArray[np.int64]],
    high: list[NDArray[np.int64]],
    weight: list[_Floats] | None,
    nthreads: int,
) -> None: ...
def upfirdn2d(
    x: _Elements,
    out: _Elements,
    kernel: _Floats,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int],
    gain: float,
    nthreads: int,
) -> None: ...
def norm(
    x: _Elements,
    out: _Elements,
    groups: int,
    epsilon: float,
    moments: NDArray[np.float64] | None,
    scale: _Floats | None,
    shift: _Floats | None,
    residual: _Elements | None,
    activation: int,
    alpha: float,
    beta: float,
    nthreads: int,
) -> None: ...
def moments(x: _Elements, out: NDArray[np.float64], nthreads: int) -> None: ...
def attention(
    q: _Elements,
    k: _Elements,
    v: _Elements,
    out: _Elements,
    scale: _Floats,
    bias: _Elements | None,
    mask: _Elements | None,
    nthreads: int,
) -> None: ...
def channel_norm(
    x: _Elements,
    out: _Elements,
    kind: int,
    epsilon: float,
    window: int,
    factor: float,
    power: float,
    offset: float,
    scale: _Floats | None,
    shift: _Floats | None,
    activation: int,
    alpha: float,
    beta: float,
    nthreads: int,
) -> None: ...
def relayout(x: _Elements, out: _Elements, nthreads: int) -> None: ...

class PackedProduct:
    bytes: int
    def __init__(self, weight: _Elements) -> None: ...
    def run(
        self,
        x: _Elements,
        out: _Elements,
        kernel: list[int],
        stride: list[int],
        pad: list[int],
        dilation: list[int],
        scale: _Floats | None,
        shift: _Floats | None,
        residual: _Elements | None,
        activation: int,
        alpha: float,
        beta: float,
        stream: bool,
        nthreads: int,
    ) -> None: ...

class PackedTransposed:
    bytes: int
    def __init__(self, weight: _Floats, tile: tuple[int, int, int], taps: bool, nthreads: int) -> None: ...
    def run(
        self,
        x: _Elements,
        out: _Elements,
        scale: _Floats | None,
        shift: _Floats | None,
        border: _Floats | None,
        residual: _Elements | None,
        activation: int,
        alpha: float,
        beta: float,
        block: int,
        share: bool,
        stream: bool,
        nthreads: int,
    ) -> None: ...

def combine(
    x: _Elements, other: _Elements, out: _Elements, kind: int, activation: int, alpha: float, beta: float, nthreads: int
) -> None: ...
def matmul(a: _Elements, b: _Elements, out: _Elements, nthreads: int) -> None: ...
def nms(boxes: _Floats, starts: NDArray[np.int64], dropped: _Floats, threshold: float, nthreads: int) -> None: ...
def roi_align(
    x: _Elements, boxes: _Floats, out: _Elements, scale: float, samples: int, aligned: bool, nthreads: int
) -> None: ...
def grid_sample(
    x: _Elements, grid: _Elements, out: _Elements, nearest: bool, align_corners: bool, outside: int, nthreads: int
) -> None: ...
def window_accumulate(
    out: _Elements,
    windows: _Floats,
    starts: NDArray[np.int64],
    weights: list[_Floats],
    floor: float,
    nthreads: int,
) -> None: ...
def window_gather(windows: NDArray[Any], image: NDArray[Any], starts: NDArray[np.int64], nthreads: int) -> None: ...
