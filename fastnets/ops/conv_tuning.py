"""Tuning of convolutions: the configurations that may be fastest, timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

import torch

from fastnets.machine import cache_bytes
from fastnets.ops.conv_choice import candidates, tuning_key
from fastnets.ops.conv_config import ConvConfig, ConvShape
from fastnets.ops.tuned import user_choices

Run = Callable[[], object]

_WORTH = 0.97  # a change for less would follow the noise


def tune(
    shape: ConvShape,
    nthreads: int,
    prepare: Callable[[ConvConfig], Run],
    clock: Callable[[], float] = time.perf_counter,
) -> ConvConfig:
    """The fastest configuration, which fastnets.ops.conv_choice.choose gives from now on, in later processes too.

    Args:
        prepare: gives the call to time for a configuration.
        clock: seconds; time.process_time with one thread does not see what else the machine does.
    """
    ranked = sorted(candidates(shape, nthreads), key=lambda pair: pair[0])
    best = fastest([config for _, config in ranked], prepare, clock)
    best = fastest([best, *_variants(best, nthreads)], prepare, clock)
    user_choices().store(tuning_key(shape, nthreads), asdict(best))
    return best


def fastest(
    configs: Iterable[ConvConfig], prepare: Callable[[ConvConfig], Run], clock: Callable[[], float]
) -> ConvConfig:
    """The first of `configs`, unless another is faster by more than noise."""
    runs = {config: prepare(config) for config in configs}
    times = cold_times(runs, clock)
    first, best = next(iter(runs)), min(times, key=lambda config: times[config])
    return best if times[best] < _WORTH * times[first] else first


def cold_times(
    runs: dict[ConvConfig, Run], clock: Callable[[], float], *, turns: int = 5, hopeless: float = 1.25
) -> dict[ConvConfig, float]:
    """The least seconds of each, which take turns and find the caches cold.

    A layer of a network finds its weights in memory and not in a cache: there, other layers ran meanwhile. Those
    slower than the best by a factor of `hopeless` are dropped after two turns.
    """
    times = dict.fromkeys(runs, float("inf"))
    others = torch.zeros(2 * cache_bytes(3) // 4)
    for turn in range(turns):
        limit = hopeless * min(times.values())
        for config, run in runs.items():
            if turn > 1 and times[config] > limit:
                continue
            others.sum()
            start = clock()
            run()
            times[config] = min(times[config], clock() - start)
    return times


def _variants(config: ConvConfig, nthreads: int) -> list[ConvConfig]:
    """The same algorithm and tile in other blocks, and with the other way of sharing.

    Stores past the caches are not tried: they look cheap here, and the next layer pays for them.
    """
    found = []
    if config.algorithm in ("winograd", "planar", "product"):
        blocks = (config.block // 2, config.block * 3 // 4, config.block * 3 // 2, config.block * 2)
        found += [replace(config, block=block) for block in blocks if block >= 1]
    if config.algorithm == "winograd" and nthreads > 1:
        found.append(replace(config, share=not config.share))
    return found
