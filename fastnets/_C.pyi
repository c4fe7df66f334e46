"""The compiled kernels: csrc/ops/<op>.cpp registers each one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]

def active_isa() -> str: ...
def available_isas() -> list[str]: ...
def window_accumulate(
    out: _Floats,
    windows: _Floats,
    starts: NDArray[np.int64],
    weights: list[_Floats],
    floor: float,
    nthreads: int,
) -> None: ...
def window_gather(windows: NDArray[Any], image: NDArray[Any], starts: NDArray[np.int64], nthreads: int) -> None: ...
