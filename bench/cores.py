"""Whether the cores are quiet and near each other, before and after what is measured on them."""

from __future__ import annotations

import time
from typing import NamedTuple

from fastnets import _C

TURN_S = 0.1
"""Between two libraries: threads of ONNX Runtime spin for 50 ms after a call, and would take a core from the next."""
QUIET = 0.8
"""A turn counts where the peak of arithmetic before and after each library is so much of the highest of the run: below
it, others have a part of the cores."""
NEAR = 2.0
"""And where a cache line goes from core to core and back in so many times the least of the run: hosts move a virtual
machine's cores between L3 caches for seconds (Zen 4: 80 and 310 ns), and MobileNetV2 takes 1.25 times as long there.
Where fewer than 3 turns are quiet and near, all of a network's count, and its row says quiet=0."""
WAITS = 10
"""Times TURN_S that a library waits for quiet cores at most."""


class State(NamedTuple):
    """Of the cores: floating point operations a second, and seconds in which a cache line goes to another and back."""

    flops: float
    round_trip: float


class Cores:
    """Arithmetic of `threads` cores and the way from one to another: what they are, and the best that was seen."""

    def __init__(self, threads: int) -> None:
        self.threads, self.highest, self.nearest = threads, 0.0, float("inf")
        for _ in range(20):  # the first turns need to know what is whole
            self.now()

    def now(self) -> State:
        found = State(float(_C.peak_flops(self.threads)), float(_C.round_trip()))
        self.highest, self.nearest = max(self.highest, found.flops), min(self.nearest, found.round_trip)
        return found

    def quiet(self, state: State) -> bool:
        return state.flops >= QUIET * self.highest and state.round_trip <= NEAR * self.nearest

    def settled(self) -> State:
        """After TURN_S, or later if the cores are quiet then."""
        for _ in range(WAITS):
            time.sleep(TURN_S)
            found = self.now()
            if self.quiet(found):
                break
        return found
