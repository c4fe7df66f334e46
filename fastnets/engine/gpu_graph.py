"""A function of tensors as one launch: its kernels in a CUDA graph, its values in memory that the graph keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Function = Callable[[list[Tensor]], list[Any]]
WARM_UPS = 2
"""Runs before the capture: kernels are compiled and loaded then, and cuDNN measures."""


@dataclass
class _Turn:
    """Graphs of a device run one after the other: they share the workspace of cuBLAS."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    done: torch.cuda.Event = field(default_factory=torch.cuda.Event)


_turns: dict[int, _Turn] = {}
_making = threading.Lock()


def _turn(device: torch.device) -> _Turn:
    with _making:
        if device.index not in _turns:
            _turns[device.index] = _Turn()
        return _turns[device.index]


class Captured:
    """A function of tensors with the layouts `inputs` (on the meta device), once captured on `device`.

    It does not keep the function: whoever has both, and goes, frees the memory of the graph at once.
    """

    def __init__(self, inputs: Sequence[Tensor], device: torch.device) -> None:
        self.layouts, self.device = inputs, device
        self.turn = _turn(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.outputs: list[Any] = []

    def run(self, inputs: Sequence[Tensor], function: Function, take: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """What `take` makes of the outputs, whose memory the next run writes: copies. All on the current stream.

        Any thread may run it, with the device as the current one. `function` is captured at the first run: it launches
        work on the current stream, and neither waits for it nor copies from memory that is not pinned.
        """
        stream = torch.cuda.current_stream(self.device)
        with self.turn.lock:
            if self.graph is None:
                self._capture(inputs, function)
            stream.wait_event(self.turn.done)  # of a run on another stream, whose inputs and outputs lie here
            for own, value in zip(self.inputs, inputs, strict=True):
                own.copy_(value.to(self.device))
            assert self.graph is not None
            self.graph.replay()
            taken = take(self.outputs)
            self.turn.done.record(stream)
        return taken

    def _empty(self) -> list[Tensor]:
        return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=self.device) for t in self.layouts]

    def _capture(self, inputs: Sequence[Tensor], function: Function) -> None:
        """On a stream of its own, where nothing else is; the inputs lie in the graph's memory, and go with it."""
        stream, graph = torch.cuda.Stream(self.device), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            first = [own.copy_(value.to(self.device)) for own, value in zip(self._empty(), inputs, strict=True)]
            for _ in range(WARM_UPS):
                function(first)
            del first
        try:
            # Other threads may allocate meanwhile: a thread that reads tiles pins memory.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.inputs = self._empty()
                self.outputs = function(self.inputs)
        except Exception as error:
            error.add_note("optimize: the network could not be captured as a CUDA graph: pass cuda_graph=False")
            raise
        self.graph = graph
