"""The dtype of a graph's values: float32, or bfloat16, which is half the memory, and twice the products a second where
the CPU has them.

Kernels compute in float32 and round what they store. Inputs and outputs keep their dtype.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import OpKernel, Torch
from fastnets.engine.kernels_matmul import Matmul
from fastnets.ops.relayout import OP as RELAYOUT
from fastnets.ops.relayout import RelayoutCall

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
HALVES = (torch.float16, torch.bfloat16)


def in_float32(graph: Graph) -> None:
    """Turn the values of a traced graph that are of 16 bits, as those of `model.bfloat16()`, into float32.

    Inputs are converted as they come, and casts follow before the outputs.
    """
    asked = {value: value.dtype for value in graph.output_nodes if value.dtype in HALVES}
    floats: dict[int, Tensor] = {}  # by the constants' ids, as kernels share what they pack of one

    def widened(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in HALVES:
            return floats.setdefault(id(value), value.float())
        return torch.float32 if isinstance(value, torch.dtype) and value in HALVES else value

    for node in graph.nodes:
        node.args = tree_map(widened, node.args)
        node.dtype = widened(node.dtype)
    for index, value in enumerate(graph.outputs):
        if isinstance(value, Node) and value in asked:
            graph.outputs[index] = _cast(value, asked[value])
            graph.nodes.append(graph.outputs[index])


def in_bfloat16(graph: Graph) -> None:
    """Turn the float32 values of a fused graph into bfloat16, with casts behind its inputs and before its outputs."""
    asked = [i for i, v in enumerate(graph.outputs) if isinstance(v, Node) and v.dtype == torch.float32]
    casts = [node for node in graph.nodes if _is_cast(node)]
    for node in list(graph.nodes):
        if node.dtype != torch.float32 or node.several:
            continue
        if node.op == "input":
            cast = _lowered_cast(node, torch.bfloat16)
            graph.redirect(node, cast)
            for reader in [cast, *(c for c in casts if c.inputs == [cast])]:
                reader.inputs = [node]
            graph.outputs = [node if value is cast else value for value in graph.outputs]
            graph.nodes.insert(graph.nodes.index(node) + 1, cast)
        else:
            node.dtype = torch.bfloat16
            _cast_kernel(node)
    for node in [node for node in casts if node.dtype == node.inputs[0].dtype]:
        graph.redirect(node, node.inputs[0])
        graph.nodes.remove(node)
    for index in asked:
        value = graph.outputs[index]
        if value.dtype == torch.bfloat16:
            graph.outputs[index] = _lowered_cast(value, torch.float32)
            graph.nodes.append(graph.outputs[index])


def cast_by_kernels(graph: Graph) -> None:
    """Let a kernel do what casts of a lowered graph it can."""
    for node in graph.nodes:
        if _is_cast(node) and {node.dtype, node.inputs[0].dtype} <= set(DTYPES.values()) and 2 <= len(node.shape) <= 5:
            node.kernel = OpKernel(RELAYOUT, RelayoutCall(torch.empty(0), node.dtype, True), channel_axis=None)


def _is_cast(node: Node) -> bool:
    return node.op == "to" and isinstance(node.kernel, Torch)


def _cast(source: Node, dtype: torch.dtype) -> Node:
    """A node with the value of `source` in another dtype."""
    target = torch.ops.aten.to.dtype
    arguments = {"self": source, "dtype": dtype, "non_blocking": False, "copy": False, "memory_format": None}
    return Node("to", arguments, source.shape, dtype, source.layer, target)


def _lowered_cast(source: Node, dtype: torch.dtype) -> Node:
    cast = _cast(source, dtype)
    cast.kernel, cast.inputs = Torch("kernels cast float32 and bfloat16 of 2 to 5 axes"), [source]
    return cast


def _cast_kernel(node: Node) -> None:
    """Weights in bfloat16; torch where a kernel takes only float32."""
    kernel = node.kernel
    kernel.dtype = torch.bfloat16
    if isinstance(kernel, Matmul) and kernel.constant is not None:
        kernel.constant = kernel.constant.bfloat16()
    if not isinstance(kernel, OpKernel):
        return
    given = {f.name: getattr(kernel.call, f.name) for f in fields(kernel.call)}
    kernel.call = replace(kernel.call, **{n: t.bfloat16() for n, t in given.items() if _is_values(t)})
    tried = replace(kernel.call, **{name: torch.empty(1, 1, 1, dtype=torch.bfloat16) for name in kernel.fields})
    native = next(candidate for candidate in kernel.op.implementations if candidate.name == "native")
    reason = native.can_run(tried)
    if reason is not None:
        node.kernel = Torch(f"{kernel.op.name}: {reason}")


def _is_values(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32
