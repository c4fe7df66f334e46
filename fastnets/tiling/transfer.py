"""Tiles to a GPU and results back, beside its work on others: pinned memory, and a stream for each direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Arrival = Callable[[], Tensor]


class Transfer:
    """Copies between this machine's memory and `device`; where that is the CPU, there is nothing to overlap."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._up, self._down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def up(self, values: Tensor) -> Arrival:
        """Start to copy `values`; any thread may. What is returned gives the copy, for the caller's current stream."""
        if self.device.type != "cuda":
            return lambda: values.to(self.device)
        with torch.cuda.device(self.device), torch.cuda.stream(self._up):
            copy = values.pin_memory().to(self.device, non_blocking=True)
            done = self._up.record_event()

        def arrive() -> Tensor:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(done)
            copy.record_stream(stream)
            return copy

        return arrive

    def down(self, values: Tensor) -> Arrival:
        """Start to copy `values`, which the current stream makes. What is returned waits for it, in any thread."""
        if self.device.type != "cuda":
            copy = values.to("cpu", copy=True)
            return lambda: copy
        values = values.contiguous()
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self._down):
            pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            pinned.copy_(values, non_blocking=True)
            values.record_stream(self._down)
            done = self._down.record_event()

        def arrive() -> Tensor:
            done.synchronize()
            return pinned

        return arrive
