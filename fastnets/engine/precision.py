"""A graph whose values are bfloat16: half the memory, and twice the products a second where the CPU has them.

Kernels compute in float32 and round what they store. Inputs and outputs keep their dtype.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from fastnets.engine.graph import Graph, Node
from fastnets.engine.kernels import OpKernel, Torch
from fastnets.ops.relayout import OP as RELAYOUT
from fastnets.ops.relayout import RelayoutCall

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def in_bfloat16(graph: Graph) -> None:
    """Turn the float32 values of a fused graph into bfloat16, with casts behind its inputs and before its outputs."""
    for node in list(graph.nodes):
        if node.dtype != torch.float32 or node.several:
            continue
        if node.op == "input":
            cast = _cast(node, torch.bfloat16)
            graph.redirect(node, cast)
            cast.inputs = [node]
            graph.nodes.insert(graph.nodes.index(node) + 1, cast)
        else:
            node.dtype = torch.bfloat16
            _cast_kernel(node)
    for index, value in enumerate(graph.outputs):
        if isinstance(value, Node) and value.dtype == torch.bfloat16:
            graph.nodes.append(_cast(value, torch.float32))
            graph.outputs[index] = graph.nodes[-1]


def _cast(source: Node, dtype: torch.dtype) -> Node:
    """A node with the value of `source` in another dtype."""
    kernel: Any = Torch("it has no axis of channels")
    if 2 <= len(source.shape) <= 5:
        kernel = OpKernel(RELAYOUT, RelayoutCall(torch.empty(0), dtype, True), channel_axis=None)
    target = torch.ops.aten.to.dtype
    arguments = {"self": source, "dtype": dtype, "non_blocking": False, "copy": False, "memory_format": None}
    return Node("to", arguments, source.shape, dtype, source.layer, target, kernel, [source])


def _cast_kernel(node: Node) -> None:
    """Weights in bfloat16; torch where a kernel takes only float32."""
    kernel = node.kernel
    kernel.dtype = torch.bfloat16
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
