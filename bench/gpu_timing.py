"""How GPU code is timed: CUDA events, inputs that take turns so that none is still in the L2 cache, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Machine:
    """Where calls run and what it reaches: bytes and operations a second, measured here."""

    device: torch.device
    name: str
    copy: float
    product: float

    def floor(self, moved: float, operations: float) -> float:
        """Seconds that `moved` bytes and `operations` take at least."""
        return max(moved / self.copy, operations / self.product)


def machine(device: torch.device) -> Machine:
    """The ceilings of a copy and of a bf16 product."""
    if device.type == "cpu":
        return Machine(device, "the CPU, interpreted", 1.0, 1.0)
    a = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    copy = 2 * a.numel() / seconds(lambda: b.copy_(a))
    m = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)
    product = 2 * 8192**3 / seconds(lambda: m @ m)
    return Machine(device, torch.cuda.get_device_name(device), copy, product)


def copies(make: Callable[[], tuple[Any, ...]], device: torch.device) -> list[tuple[Any, ...]]:
    """As many sets of arguments as fill the L2 cache twice, 2 to 32."""
    first = make()
    if device.type == "cpu":
        return [first]
    size = sum(t.numel() * t.element_size() for t in first if isinstance(t, torch.Tensor))
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return [first] + [make() for _ in range(min(31, max(1, 2 * cache // max(size, 1))))]


def seconds(call: Callable[[], Any], budget: float = 0.25) -> float:
    """The median of samples of at least a millisecond, after a warm-up; `budget` seconds in all."""
    for _ in range(3):
        call()
    repeats = max(1, int(1e-3 / max(_sample(call, 3), 1e-7)))
    samples: list[float] = []
    end = time.perf_counter() + budget
    while len(samples) < 5 or (len(samples) < 100 and time.perf_counter() < end):
        samples.append(_sample(call, repeats))
    return statistics.median(samples)


def _sample(call: Callable[[], Any], repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def peak_bytes(call: Callable[[], Any]) -> int:
    """What `call` allocates on the device at most, beside what is there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def turns(function: Callable[..., Any], sets: list[tuple[Any, ...]]) -> Callable[[], Any]:
    """A call of `function` on each set of arguments in turn."""
    state = iter(range(1 << 62))
    return lambda: function(*sets[next(state) % len(sets)])
