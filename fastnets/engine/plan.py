"""A graph with its memory, and the recorded calls that run it.

A Plan is what all runs at one input shape share. An Instance is an arena with the calls recorded over it: one
run at a time uses it, so that runs at the same time, of several Python threads, have one each.

A call does as little as it can in Python: after a network has filled the caches, each line costs ten times what it
costs in a loop, and those of a first version took 0.4 ms of a network of 4 ms.
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
from fastnets.engine.spread import spread
from fastnets.engine.storage import Buffer, Storage, assign
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
            return instance.run(inputs)
        finally:
            self.idle.append(instance)

    def profile(self, inputs: Sequence[Tensor], runs: int) -> dict[Node, float]:
        """Median seconds of each step that computes."""
        instance = self._take()
        times: list[dict[Node, float]] = []
        try:
            for _ in range(runs + 1):
                instance.run(inputs, timed=True)
                times.append(instance.seconds)
        finally:
            self.idle.append(instance)
        return {node: statistics.median(t[node] for t in times[1:]) for node in times[0]}

    def _take(self) -> Instance:
        try:
            return self.idle.pop()
        except IndexError:
            with self.lock, torch.inference_mode(False), torch.no_grad():  # its memory outlives the caller's mode
                return Instance(self)

    @property
    def peak_bytes(self) -> int:
        """Memory of one run: the arena, the kernels' scratch, copies of contiguous inputs where needed, the outputs."""
        instance = self._take()
        self.idle.append(instance)
        copied = sum(a.buffer.bytes for a in instance.arrivals if a.returned or not a.takes_contiguous)
        made = sum(buffer.bytes for buffer, *_ in instance.fresh)
        return self.storage.bytes + instance.scratch_bytes + copied + made


def make_plan(graph: Graph, nthreads: int) -> Plan:
    """Lay out a lowered graph, and give its values their memory."""
    layouts = lay_out(graph)
    spread(graph, layouts)
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
        buffer_of = plan.storage.buffer_of
        returned = {buffer_of[node] for node in plan.graph.output_nodes}
        self.arrivals = [
            _Arrival(buffer_of[node], plan.layouts[node], self.externals[buffer_of[node]], buffer_of[node] in returned)
            for node in plan.graph.inputs
        ]
        arriving = {arrival.buffer for arrival in self.arrivals}
        self.fresh = [(b, *_form(plan.layouts[b.owner])) for b in self.external_buffers if b not in arriving]

    @property
    def scratch_bytes(self) -> int:
        native = [part for part in self.segments if isinstance(part, _Native)]
        return max((part.calls.scratch(self.plan.nthreads) for part in native), default=0)

    def run(self, inputs: Sequence[Tensor], *, timed: bool = False) -> list[Any]:
        nthreads = self.plan.nthreads
        given = {a.buffer: a.take(value, nthreads) for a, value in zip(self.arrivals, inputs, strict=True)}
        for buffer, shape, stride, dtype in self.fresh:
            given[buffer] = torch.empty_strided(shape, stride, dtype=dtype)
        self.externals = given
        self.seconds = {}
        for segment in self.segments:
            segment.run(self, timed)
        outputs = [self.tensor(v) if isinstance(v, Node) else v for v in self.plan.graph.outputs]
        self.externals, self.several = {}, {}
        return outputs

    def tensor(self, node: Node) -> Tensor:
        """The value of `node` as a tensor over the arena or over the caller's memory."""
        storage = self.plan.storage
        buffer = storage.buffer_of[node]
        if buffer.external and buffer.owner is node:
            return self.externals[buffer]
        if node in storage.slices:
            join, axis, start = storage.slices[node]
            return self.tensor(join).narrow(axis, start, node.shape[axis])
        if isinstance(node.kernel, View):
            return node.kernel.apply(self.tensor(node.inputs[0]))
        layout = self.plan.layouts[node]
        if buffer.external:
            return self.externals[buffer]
        memory = self.arena[buffer.offset : buffer.offset + buffer.bytes].view(layout.dtype)
        return memory.as_strided(layout.shape, layout.stride())

    def _record(self) -> None:
        for node in self.plan.graph.nodes:
            if node.op == "input" or isinstance(node.kernel, View | Concat) or 0 in node.shape:
                continue
            if isinstance(node.kernel, Torch):
                self.segments.append(_TorchStep(node, self))
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


class _Arrival:
    """An input as the caller has it, and as the plan reads it.

    Copies are made by the plan's own threads: OpenMP's would spin for milliseconds after it and take a core from the
    plan, which made 2 threads slower than 1.
    """

    def __init__(self, buffer: Buffer, layout: Tensor, staging: Tensor, returned: bool) -> None:
        self.buffer, self.staging, self.returned = buffer, staging, returned
        self.shape, self.stride, self.dtype = _form(layout)
        self.dense = _as_dense(layout)
        self.takes_contiguous = self.dense == _as_dense(layout.contiguous())
        self.copies: tuple[Any, _C.Plan] | None = None  # how the inputs lie that it copies, and the recorded call

    def take(self, value: Tensor, nthreads: int) -> Tensor:
        """The input itself if its elements lie as the plan has them, else a copy."""
        if value.requires_grad:
            value = value.detach()
        plain = value.dtype == self.dtype and value.is_cpu and not self.returned
        if plain and (value.stride() == self.stride or _as_dense(value) == self.dense):
            return value
        target = torch.empty_strided(self.shape, self.stride, dtype=self.dtype) if self.returned else self.staging
        if not (3 <= value.dim() <= 5 and value.dtype in KERNEL_DTYPES and value.is_cpu and value.numel()):
            return target.copy_(value)
        key = (value.stride(), value.dtype)
        if self.copies is None or self.copies[0] != key:
            self.copies = key, _recorded_copy(value, target)
        self.copies[1].run([value.data_ptr(), target.data_ptr()], nthreads)
        return target


def _recorded_copy(value: Tensor, target: Tensor) -> _C.Plan:
    extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    regions = [(value.data_ptr(), extent * value.itemsize, True), (target.data_ptr(), target.nbytes, True)]
    calls = _C.Plan(regions)
    with calls:
        relayout_into(value, target)
    return calls


class _TorchStep:
    """A call of torch. Tensors over the arena are made once: each takes 40 us where a network has filled the caches."""

    def __init__(self, node: Node, instance: Instance) -> None:
        self.node = node
        self.tensors = {n: instance.tensor(n) for n in (node, *node.inputs) if self._is_fixed(n, instance)}

    @staticmethod
    def _is_fixed(node: Node, instance: Instance) -> bool:
        return not node.several and not instance.plan.storage.buffer_of[node].external

    def run(self, instance: Instance, timed: bool) -> None:
        start = perf_counter()
        with torch.no_grad():
            self._compute(instance)
        if timed:
            instance.seconds[self.node] = perf_counter() - start

    def _compute(self, instance: Instance) -> None:
        node = self.node
        if node.op == "getitem":
            result = instance.several[node.inputs[0]][node.args["index"]]
        else:
            values = iter([self._value(instance, source) for source in node.inputs])
            result = node.call(lambda _: next(values))
        if node.several:
            instance.several[node] = result
        else:
            self._tensor(node, instance).copy_(result)

    def _tensor(self, node: Node, instance: Instance) -> Tensor:
        fixed = self.tensors.get(node)
        return instance.tensor(node) if fixed is None else fixed

    def _value(self, instance: Instance, source: Node) -> Any:
        if source.several:
            return instance.several[source]
        value = self._tensor(source, instance)
        return value.float() if value.dtype == torch.bfloat16 else value


def _form(layout: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype]:
    return layout.shape, layout.stride(), layout.dtype


def _empty(layout: Tensor) -> Tensor:
    return torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype)


def _as_dense(x: Tensor) -> tuple[int, ...]:
    """The strides of the axes that have more than one element."""
    return tuple(stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1)
