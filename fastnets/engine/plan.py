"""A graph with its memory, and the recorded calls that run it.

A Plan is what all runs at one input shape share. An Instance is an arena with the calls recorded over it: one
run at a time uses it, so that runs at the same time, of several Python threads, have one each.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from fastnets import _C
from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Concat, Torch, View
from fastnets.engine.layout import Layouts, lay_out
from fastnets.engine.storage import Storage, assign
from fastnets.ops.layout import KERNEL_DTYPES
from fastnets.ops.relayout import relayout_into


@dataclass
class Plan:
    """How a graph runs: fixed shapes, memory and kernels."""

    graph: Graph
    layouts: Layouts
    storage: Storage
    nthreads: int
    idle: list[Instance] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, inputs: Sequence[Tensor]) -> list[Any]:
        """The outputs, in the order of the graph's."""
        instance = self._take()
        try:
            with torch.inference_mode(False), torch.no_grad():
                return instance.run(inputs)
        finally:
            self._give_back(instance)

    def profile(self, inputs: Sequence[Tensor], runs: int) -> dict[Node, float]:
        """Median seconds of each step that computes."""
        instance = self._take()
        times: list[dict[Node, float]] = []
        with torch.inference_mode(False), torch.no_grad():
            for _ in range(runs + 1):
                instance.run(inputs, timed=True)
                times.append(instance.seconds)
        self._give_back(instance)
        return {node: statistics.median(t[node] for t in times[1:]) for node in times[0]}

    def _take(self) -> Instance:
        with self.lock, torch.inference_mode(False), torch.no_grad():  # its memory outlives the caller's mode
            return self.idle.pop() if self.idle else Instance(self)

    def _give_back(self, instance: Instance) -> None:
        with self.lock:
            self.idle.append(instance)

    @property
    def peak_bytes(self) -> int:
        """Memory of one run: the arena, the kernels' scratch, inputs that must be copied, and the outputs."""
        instance = self._take()
        self._give_back(instance)
        outside = sum(buffer.bytes for buffer in self.storage.buffers if buffer.external)
        return self.storage.bytes + instance.scratch_bytes + outside


def make_plan(graph: Graph, nthreads: int) -> Plan:
    """Lay out a lowered graph, and give its values their memory."""
    layouts = lay_out(graph)
    return Plan(graph, layouts, assign(graph, layouts), nthreads)


class Instance:
    """An arena, and the plan's calls recorded over it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.arena = torch.empty(plan.storage.bytes, dtype=torch.uint8)
        self.several: dict[Node, Any] = {}  # results of torch steps that are several
        self.seconds: dict[Node, float] = {}
        self.external_buffers = [buffer for buffer in plan.storage.buffers if buffer.external]
        # While recording, addresses for what the caller will give: memory that nothing touches takes no pages.
        self.externals = {buffer: _empty(plan.layouts[buffer.owner]) for buffer in self.external_buffers}
        self.memory = [(self.arena.data_ptr(), self.arena.numel(), False)]
        self.memory += [(t.data_ptr(), buffer.bytes, True) for buffer, t in self.externals.items()]
        constants = [t for node in plan.graph.nodes if node.kernel is not None for t in node.kernel.constants]
        self.memory += [(t.data_ptr(), t.nbytes, False) for t in constants]
        self.segments: list[_Native | _TorchStep] = []
        self._record()
        self.returned = {plan.storage.buffer_of[node] for node in plan.graph.output_nodes}
        self.staging = {node: self.externals[plan.storage.buffer_of[node]] for node in plan.graph.inputs}
        self.entries: dict[Node, _Entry] = {}

    @property
    def scratch_bytes(self) -> int:
        native = [part for part in self.segments if isinstance(part, _Native)]
        return max((part.calls.scratch(self.plan.nthreads) for part in native), default=0)

    def run(self, inputs: Sequence[Tensor], *, timed: bool = False) -> list[Any]:
        plan, graph = self.plan, self.plan.graph
        given = {}
        for node, value in zip(graph.inputs, inputs, strict=True):
            given[plan.storage.buffer_of[node]] = self._readable(node, value)
        for buffer in self.external_buffers:
            if buffer not in given:
                given[buffer] = _empty(plan.layouts[buffer.owner])
        self.externals = given
        self.seconds = {}
        for segment in self.segments:
            segment.run(self, timed)
        outputs = [self.tensor(v) if isinstance(v, Node) else v for v in graph.outputs]
        self.externals, self.several = {}, {}
        return outputs

    def _readable(self, node: Node, value: Tensor) -> Tensor:
        """The input itself if its elements lie as the plan has them, else a copy."""
        plan, layout = self.plan, self.plan.layouts[node]
        same = value.stride() == layout.stride() or (value.numel() > 0 and _as_dense(value) == _as_dense(layout))
        returned = plan.storage.buffer_of[node] in self.returned
        if same and value.dtype == layout.dtype and value.device.type == "cpu" and not returned:
            return value.detach()
        target = _empty(layout) if returned else self.staging[node]
        if 3 <= value.dim() <= 5 and value.dtype in KERNEL_DTYPES and value.device.type == "cpu":
            entry = self.entries.get(node)
            if entry is None or not entry.fits(value):
                entry = self.entries[node] = _Entry(value.detach(), target)
            entry.run(value, target, plan.nthreads)
            return target
        return target.copy_(value.detach())

    def tensor(self, node: Node) -> Tensor:
        """The value of `node` as a tensor over the arena or over the caller's memory."""
        storage = self.plan.storage
        if node in storage.slices:
            join, axis, start = storage.slices[node]
            return self.tensor(join).narrow(axis, start, node.shape[axis])
        if isinstance(node.kernel, View):
            return node.kernel.apply(self.tensor(node.inputs[0]))
        buffer, layout = storage.buffer_of[node], self.plan.layouts[node]
        if buffer.external:
            return self.externals[buffer]
        memory = self.arena[buffer.offset : buffer.offset + buffer.bytes].view(layout.dtype)
        return memory.as_strided(layout.shape, layout.stride())

    def _record(self) -> None:
        for node in self.plan.graph.nodes:
            if node.op == "input" or isinstance(node.kernel, View | Concat) or 0 in node.shape:
                continue
            if isinstance(node.kernel, Torch):
                self.segments.append(_TorchStep(node))
                continue
            if not self.segments or isinstance(self.segments[-1], _TorchStep):
                self.segments.append(_Native(_C.Plan(self.memory)))
            native = self.segments[-1]
            assert isinstance(native, _Native)
            with native.calls:
                node.kernel.emit([self.tensor(source) for source in node.inputs], self.tensor(node))
            native.nodes += [node] * (len(native.calls) - len(native.nodes))


@dataclass
class _Native:
    """Kernel calls that follow each other: one call of _C. `nodes` names the node of each."""

    calls: _C.Plan
    nodes: list[Node] = field(default_factory=list)

    def run(self, instance: Instance, timed: bool) -> None:
        addresses = [instance.externals[buffer].data_ptr() for buffer in instance.external_buffers]
        if not timed:
            self.calls.run(addresses, instance.plan.nthreads)
            return
        for node, seconds in zip(self.nodes, self.calls.profile(addresses, instance.plan.nthreads), strict=True):
            instance.seconds[node] = instance.seconds.get(node, 0.0) + float(seconds)


class _Entry:
    """The copy of an input to where a plan reads it, by the plan's own threads.

    OpenMP's would spin for milliseconds after it and take a core from the plan: 2 threads were slower than 1.
    """

    def __init__(self, value: Tensor, target: Tensor) -> None:
        self.stride, self.dtype = value.stride(), value.dtype
        extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, self.stride, strict=True))
        regions = [(value.data_ptr(), extent * value.itemsize, True), (target.data_ptr(), target.nbytes, True)]
        self.calls = _C.Plan(regions)
        with self.calls:
            relayout_into(value, target)

    def fits(self, value: Tensor) -> bool:
        return (value.stride(), value.dtype) == (self.stride, self.dtype)

    def run(self, value: Tensor, target: Tensor, nthreads: int) -> None:
        self.calls.run([value.data_ptr(), target.data_ptr()], nthreads)


@dataclass
class _TorchStep:
    node: Node

    def run(self, instance: Instance, timed: bool) -> None:
        start, node = perf_counter(), self.node
        if node.op == "getitem":
            result = instance.several[node.inputs[0]][node.args["index"]]
        else:
            values = iter([self._value(instance, source) for source in node.inputs])
            result = node.call(lambda _: next(values))
        if node.several:
            instance.several[node] = result
        else:
            instance.tensor(node).copy_(result)
        if timed:
            instance.seconds[node] = perf_counter() - start

    @staticmethod
    def _value(instance: Instance, source: Node) -> Any:
        if source.several:
            return instance.several[source]
        value = instance.tensor(source)
        return value.float() if value.dtype == torch.bfloat16 else value


def _empty(layout: Tensor) -> Tensor:
    return torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype)


def _as_dense(x: Tensor) -> tuple[int, ...]:
    """The strides of the axes that have more than one element."""
    return tuple(stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1)
