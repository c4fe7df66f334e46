"""A network's graph at given input shapes, as plain data.

`torch.export` runs the network on fake tensors, so a trace at 100,000 × 100,000 pixels needs no memory. What
comes back is a flat list of steps in execution order with concrete shapes. Writes in place are renamed to fresh
values, so that every later reader sees the value it really reads.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from fastnets.engine import Optimized
from fastnets.engine.module import home_of
from fastnets.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """The result of step number `index`, as an argument of a later step."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation: `op` is its ATen name without overload, `args` its arguments by schema name."""

    op: str
    args: dict[str, Any]
    layer: str
    shapes: tuple[Shape, ...]
    itemsize: int
    pointwise: bool = False
    mutates_view: bool = False

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    @property
    def nbytes(self) -> int:
        return sum(prod(shape) for shape in self.shapes) * self.itemsize

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        found: list[int] = []
        tree_map_only(Ref, lambda ref: found.append(ref.index), list(self.args.values()))
        return tuple(found)


@dataclass(frozen=True)
class Graph:
    """All steps of one trace. `images` are the inputs that tiling cuts; `outputs` follow the model's tuple order."""

    steps: tuple[Step, ...]
    images: tuple[int, ...]
    outputs: tuple[int, ...]

    def last_use(self) -> dict[int, int]:
        """For each step, the last step that reads it (outputs live to the end)."""
        uses = {source: index for index, step in enumerate(self.steps) for source in step.inputs}
        return uses | dict.fromkeys(self.outputs, len(self.steps))


def trace(model: nn.Module, shape: Shape, *, dtype: torch.dtype = torch.float32) -> Graph:
    """The graph of `model` in eval mode on one image of `shape` (N, C, *spatial).

    Raises InputError where torch.export refuses, with its reason; a failure that depends on the shape (a skip
    connection that does not fit an odd size, say) is raised the same way.
    """
    if isinstance(model, Optimized) and model.original is not None:
        model = model.original
    if model.training:
        raise InputError(
            "model is in training mode, in which batch norm and dropout change with the tile: call model.eval()"
        )
    image = torch.empty(1, dtype=dtype, device=home_of(model)).expand(shape)  # strides of 0: any shape, four bytes
    try:
        with _quiet(_FAKE_TENSOR_LOG):
            program = torch.export.export(model, (image,), strict=False)
    except Exception as error:  # export raises whatever the model's own code raises
        raise InputError(
            f"torch.export cannot trace {type(model).__name__} at input shape {shape}: {_first_line(error)}; "
            "pass halo=… (input pixels) to tile it without an analysis"
        ) from error
    # What no output reads, such as the head of a classifier whose maps are wanted, does not forbid tiling.
    program.graph.eliminate_dead_code()
    return _Builder(program).graph()


# Logs the traceback of every shape error, which is an answer here and not an accident.
_FAKE_TENSOR_LOG = logging.getLogger("torch._subclasses.fake_tensor")


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Results that share memory with their first argument, so that a write through them reaches it.
_SAME_VALUE = {"alias", "detach", "contiguous", "lift_fresh_copy"}
VIEWS = {"slice", "select", "view", "reshape", "permute", "transpose", "expand", "squeeze", "unsqueeze", "narrow"}
VIEWS |= {"chunk", "split", "unbind", "flatten", "unflatten", "movedim", "diagonal", "getitem", "split_with_sizes"}


class _Builder:
    """Turns an exported program into a Graph."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.steps: list[Step] = []
        self.of_node: dict[torch.fx.Node, int] = {}
        self.newest: dict[int, int] = {}  # a step whose memory was written -> the step that holds its value now
        self.same: dict[int, int] = {}  # a step that is the same memory as an earlier one
        self.viewed: set[int] = set()  # steps of which a view exists

    def graph(self) -> Graph:
        signature = self.program.graph_signature
        users = set(signature.user_inputs)
        images = []
        outputs: tuple[int, ...] = ()
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                index = self._add(node, Step("input", {}, node.name, *_shapes(node)))
                if node.name in users:
                    images.append(index)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                wanted = set(signature.user_outputs)
                flat = [n for n in node.all_input_nodes if n.name in wanted]
                by_name = {n.name: self._current(self.of_node[n]) for n in flat}
                outputs = tuple(by_name[name] for name in signature.user_outputs if name in by_name)
        return Graph(tuple(self.steps), tuple(images), outputs)

    def _add(self, node: torch.fx.Node, step: Step) -> int:
        self.steps.append(step)
        self.of_node[node] = len(self.steps) - 1
        return len(self.steps) - 1

    def _current(self, index: int) -> int:
        index = self.same.get(index, index)
        return self.newest.get(index, index)

    def _call(self, node: torch.fx.Node) -> None:
        target = node.target
        arguments, op, mutates = _named_arguments(node)
        arguments = tree_map_only(torch.fx.Node, lambda n: Ref(self._current(self.of_node[n])), arguments)
        written = next((n for n in node.all_input_nodes), None) if mutates else None
        writes_view = False
        if written is not None:
            root = self._root(self.of_node[written])
            writes_view = root in self.viewed or self.steps[root].op in VIEWS
        step = Step(
            op,
            arguments,
            _layer(node),
            *_shapes(node),
            pointwise=torch.Tag.pointwise in getattr(target, "tags", ()),
            mutates_view=writes_view,
        )
        index = self._add(node, step)
        if written is not None:
            root = self._root(self.of_node[written])
            self.newest[root] = index
            self.same[index] = root
        elif op in VIEWS and node.all_input_nodes:
            self.viewed.add(self._root(self.of_node[node.all_input_nodes[0]]))
        elif op in _SAME_VALUE:
            self.same[index] = self._root(self.of_node[node.all_input_nodes[0]])

    def _root(self, index: int) -> int:
        return self.same.get(index, index)


def _named_arguments(node: torch.fx.Node) -> tuple[dict[str, Any], str, bool]:
    """(arguments by name, operation name, whether it writes into its first argument)."""
    if node.target is operator.getitem:
        return {"self": node.args[0], "index": node.args[1]}, "getitem", False
    if not isinstance(node.target, torch._ops.OpOverload):
        name = getattr(node.target, "__name__", str(node.target))
        return {str(i): value for i, value in enumerate(node.args)}, name, False
    schema = node.target._schema
    given = {a.name: value for a, value in zip(schema.arguments, node.args, strict=False)} | node.kwargs
    arguments = {a.name: given.get(a.name, a.default_value) for a in schema.arguments}
    namespace, _, name = schema.name.partition("::")
    mutates = schema.is_mutable
    if mutates and name.endswith("_"):
        name = name.rstrip("_")
    return arguments, name if namespace == "aten" else schema.name, mutates


def _shapes(node: torch.fx.Node) -> tuple[tuple[Shape, ...], int]:
    value = node.meta.get("val")
    tensors = [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, torch.Tensor)]
    return tuple(tuple(int(n) for n in t.shape) for t in tensors) or ((),), max(
        (t.element_size() for t in tensors), default=0
    )


def _layer(node: torch.fx.Node) -> str:
    """The dotted name of the module whose forward made this node, with its class."""
    stack: Sequence[Any] = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return node.name
    path, kind = stack[-1][:2]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'forward'} ({kind.rsplit('.', 1)[-1]})"


def peak_bytes(graph: Graph) -> int:
    """Bytes of the live tensors at the worst step, weights left out.

    A convolution counts its input and output twice, for those that oneDNN reorders into its own layout; maximum
    pooling counts the indices (int64) that torch makes and drops.
    """
    steps = graph.steps
    shares = [step.op in VIEWS or step.op in _SAME_VALUE for step in steps]
    weights = {i for i, step in enumerate(steps) if step.op == "input" and i not in graph.images}
    dies = dict(graph.last_use())
    for index in reversed(range(len(steps))):  # memory lives as long as the last view of it
        if shares[index] and steps[index].inputs:
            base = steps[index].inputs[0]
            dies[base] = max(dies.get(base, 0), dies.get(index, index))
    freed_at: dict[int, int] = {}
    for index, step in enumerate(steps):
        if not shares[index] and index not in weights:
            when = dies.get(index, index)
            freed_at[when] = freed_at.get(when, 0) + step.nbytes
    live = peak = 0
    for index, step in enumerate(steps):
        if index in weights:
            continue
        live += 0 if shares[index] else step.nbytes
        scratch = 0
        if "conv" in step.op:
            scratch = step.nbytes + steps[step.inputs[0]].nbytes
        elif step.op.startswith("max_pool"):
            scratch = prod(step.shape) * 8
        peak = max(peak, live + scratch)
        live -= freed_at.get(index, 0)
    return peak
