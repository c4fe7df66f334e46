"""A lowered graph as steps on a GPU, captured in one CUDA graph: no Python and no launches apart in a run.

Values come from torch's allocator when their step runs, and go when their last reader has run; within a captured
graph their addresses stay. With TRITON_INTERPRET=1 the same steps run on the CPU: how tests check their values.
"""

from __future__ import annotations

import logging
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from fastnets.engine import gpu_steps_conv  # noqa: F401  it registers its steps
from fastnets.engine.gpu_graph import Captured
from fastnets.engine.gpu_steps import step_of
from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import Concat, Torch, View
from fastnets.engine.layout import lay_out
from fastnets.engine.storage import Buffer, assign

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Memory = dict[Buffer, Tensor]
Values = list[Any]
_settings = threading.Lock()
"""Of whoever changes those of cuDNN, which are the process's."""
_SYNCHRONIZES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.cudagraph_unsafe}


class GpuPlan:
    """How a graph runs on `device` at fixed shapes.

    Args:
        graph: lowered and fused.
        dtype: what its float32 values become; inputs and outputs keep their dtype for the caller.
        captured: run it as a CUDA graph, where CUDA can.
    """

    def __init__(self, graph: Graph, device: torch.device, dtype: torch.dtype, *, captured: bool = True) -> None:
        self.graph, self.device, self.dtype = graph, device, dtype
        self.returned = [value.dtype if isinstance(value, Node) else None for value in graph.outputs]
        _convert(graph, dtype)
        self.layouts = lay_out(graph, any_order=False)
        self.storage = assign(graph, self.layouts)
        with torch.inference_mode(False), torch.no_grad(), _on(device):
            self.steps = {n: step_of(n.kernel, n, device) for n in graph.nodes if _computes(n)}
        self.ending: dict[int, list[Buffer]] = {}
        for buffer in self.storage.buffers:
            if not buffer.external:
                self.ending.setdefault(buffer.last, []).append(buffer)
        self.no_graph = "it was not asked for" if not captured else _no_graph(graph, device)
        if captured and self.no_graph and device.type == "cuda":
            logger.warning("optimize: no CUDA graph: %s", self.no_graph)
        inputs = [self.layouts[node] for node in graph.inputs]
        self.captured = None if self.no_graph else Captured(inputs, device)

    def run(self, inputs: Sequence[Tensor]) -> Values:
        """The outputs on the device, in the order of the graph's; their memory is the caller's."""
        with torch.inference_mode(False), torch.no_grad(), _on(self.device):
            if self.captured is not None and not torch.cuda.is_current_stream_capturing():
                return self.captured.run(inputs, self._run, self._own)
            return self._own(self._run(self._all_placed(inputs)))

    def profile(self, inputs: Sequence[Tensor], runs: int) -> dict[Node, float]:
        """Median seconds of each step, launched one by one."""
        times: list[list[float]] = []
        with torch.inference_mode(False), torch.no_grad(), _on(self.device):
            placed = self._all_placed(inputs)
            for _ in range(runs + 1):
                marks: list[Any] = []
                if self.device.type == "cuda":
                    _sleep(100_000 * len(self.steps))
                self._run(placed, marks)
                times.append(_seconds(marks))
        medians = (statistics.median(t[index] for t in times[1:]) for index in range(len(self.steps)))
        return dict(zip(self.steps, medians, strict=True))

    @property
    def machine(self) -> str:
        """What it runs on, and how."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return f"{name}, {f'no CUDA graph: {self.no_graph}' if self.no_graph else 'one CUDA graph'}"

    def peak_flops(self) -> float:
        """Floating-point operations a second of a large product in the plan's dtype, measured now."""
        size = 4096 if self.device.type == "cuda" else 256
        a = torch.randn(size, size, device=self.device).to(self.dtype)
        with _on(self.device):
            marks: list[Any] = [_now(self.device)]
            for _ in range(8):
                a @ a
                marks.append(_now(self.device))
            return float(2 * size**3 / min(_seconds(marks)))

    @property
    def value_bytes(self) -> int:
        """What the values between the steps take at most."""
        buffers = [buffer for buffer in self.storage.buffers if not buffer.external]
        steps = range(len(self.graph.nodes))
        return max((sum(b.bytes for b in buffers if b.first <= n <= b.last) for n in steps), default=0)

    @property
    def peak_bytes(self) -> int:
        """Memory of one run: values, inputs in their layout, and outputs twice: in the graph, and the caller's.

        Without what cuDNN takes while it computes.
        """
        external = sum(buffer.bytes for buffer in self.storage.buffers if buffer.external)
        own = sum(self.layouts[node].nbytes for node in self.graph.output_nodes)
        return self.value_bytes + external + own

    def _all_placed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [self._placed(node, value) for node, value in zip(self.graph.inputs, inputs, strict=True)]

    def _placed(self, node: Node, value: Tensor) -> Tensor:
        """A copy that lies as the plan has it."""
        return self._empty(node).copy_(value.to(self.device))

    def _empty(self, node: Node) -> Tensor:
        layout = self.layouts[node]
        return torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype, device=self.device)

    def _own(self, outputs: Values) -> Values:
        """Copies of the outputs in the dtype that the network gives."""
        pairs = zip(outputs, self.returned, strict=True)
        return [v.to(dtype, copy=True) if isinstance(v, Tensor) and dtype else v for v, dtype in pairs]

    def _run(self, inputs: Sequence[Tensor], marks: list[Any] | None = None) -> Values:
        """Launch every step; `marks` gets the time before the first and after each."""
        with _libraries(), torch.autocast(self.device.type, enabled=False):
            return self._launch(inputs, marks)

    def _launch(self, inputs: Sequence[Tensor], marks: list[Any] | None) -> Values:
        memory: Memory = {self.storage.buffer_of[n]: t for n, t in zip(self.graph.inputs, inputs, strict=True)}
        several: dict[Node, Any] = {}
        if marks is not None:
            marks.append(_now(self.device))
        for place, node in enumerate(self.graph.nodes):
            step = self.steps.get(node)
            if step is not None and 0 not in node.shape:
                values = [several[s] if s.several else self._tensor(s, memory) for s in node.inputs]
                bound = not step.writes and not node.several and self._is_free(node, memory)
                result = step.run(values, None if bound or node.several else self._tensor(node, memory))
                if node.several:
                    several[node] = result
                elif bound:
                    memory[self.storage.buffer_of[node]] = self._fitting(node, result, values)
                del values, result
            if step is not None and marks is not None:
                marks.append(_now(self.device))
            for buffer in self.ending.get(place, ()):
                memory.pop(buffer, None)
        return [self._tensor(v, memory) if isinstance(v, Node) else v for v in self.graph.outputs]

    def _is_free(self, node: Node, memory: Memory) -> bool:
        """Whether the value has its memory to itself, and may bring it."""
        buffer = self.storage.buffer_of[node]
        return buffer.owner is node and buffer not in memory

    def _fitting(self, node: Node, result: Tensor, values: Values) -> Tensor:
        """The result itself if it lies as the plan has it, in memory that no input has; else a copy."""
        layout = self.layouts[node]
        taken = {v.untyped_storage().data_ptr() for v in values if isinstance(v, Tensor)}
        same = result.dtype == layout.dtype and dense(result) == dense(layout)
        if same and result.untyped_storage().data_ptr() not in taken:
            return result
        return self._placed(node, result)

    def _tensor(self, node: Node, memory: Memory) -> Tensor:
        """The value of `node`, or the memory where it will be."""
        if node in self.storage.slices:
            join, axis, start = self.storage.slices[node]
            return self._tensor(join, memory).narrow(axis, start, node.shape[axis])
        if isinstance(node.kernel, View):
            return node.kernel.apply(self._tensor(node.inputs[0], memory))
        buffer = self.storage.buffer_of[node]
        if buffer not in memory:
            memory[buffer] = self._empty(buffer.owner)
        return memory[buffer]


def dense(x: Tensor) -> tuple[int, ...]:
    """The strides of the axes that have more than one element."""
    return tuple(stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1)


def _computes(node: Node) -> bool:
    return node.op != "input" and not isinstance(node.kernel, View | Concat)


def _convert(graph: Graph, dtype: torch.dtype) -> None:
    """Turn float32 values into `dtype`. Inputs are converted when they are copied to the device, outputs when back."""
    for node in graph.nodes:
        if node.dtype == torch.float32:
            node.dtype = dtype
            if node.kernel is not None:
                node.kernel.dtype = dtype


def _no_graph(graph: Graph, device: torch.device) -> str:
    """Why CUDA cannot capture the steps, or ""."""
    if device.type != "cuda":
        return f"it runs on the {device.type}"
    for node in graph.nodes:
        masks = node.op.startswith("index") and any(source.dtype == torch.bool for source in node.inputs)
        if isinstance(node.kernel, Torch) and (masks or _SYNCHRONIZES & set(getattr(node.target, "tags", ()))):
            return f"the CPU has to wait for {node.op} of {node.layer}"
    return ""


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Where kernels are launched and events recorded."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _libraries() -> Iterator[None]:
    """cuDNN measures its algorithms at the first run of a shape; TF32 only where the user asks torch for it.

    The caller's autocast would change the dtype of single steps.
    """
    tf32 = torch.get_float32_matmul_precision() != "highest"
    with _settings, torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
        yield


def _sleep(cycles: int) -> None:
    """Keep the device busy while launches queue up, so that there are no gaps between them."""
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _seconds(marks: list[Any]) -> list[float]:
    """Between each two."""
    pairs = list(pairwise(marks))
    if not pairs or isinstance(marks[0], float):
        return [after - before for before, after in pairs]
    marks[-1].synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in pairs]
