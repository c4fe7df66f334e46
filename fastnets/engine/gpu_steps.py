"""How the nodes of a lowered graph run on a GPU: norms, activations, and what torch runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from fastnets.engine.attention import Attention
from fastnets.engine.gpu_weights import vector_on
from fastnets.engine.graph import Node
from fastnets.engine.kernels import Constant, Kernel, OpKernel, Rearranged, Torch, pixels
from fastnets.engine.kernels_matmul import Matmul
from fastnets.ops.channel_norm import OP as CHANNEL_NORM
from fastnets.ops.gpu import triton_kernels
from fastnets.ops.pad import OP as PAD
from fastnets.ops.pool import OP as POOL
from fastnets.ops.resize import OP as RESIZE

Run = Callable[[list[Any], Any], Any]

# Operations of torch that lose nothing in 16 bits: they move or compare values, or sum in float32.
_SAFE = ("max_pool", "avg_pool", "adaptive_", "mean", "upsample_", "pad", "constant_pad", "reflection_pad",
         "replication_pad", "softmax", "_softmax", "mul", "add", "matmul", "bmm", "attention")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """How one node runs.

    Args:
        kernel: what runs it.
        why: why that.
        run: takes the values of the inputs and where to write; gives the result.
        writes: run must be told where to write. Else it may be, or gives memory of its own.
    """

    kernel: str
    why: str
    run: Run
    writes: bool = True


def refusal(kernel: Kernel) -> str | None:
    """Why torch runs what has a kernel on the CPU."""
    taken = isinstance(kernel, OpKernel) and kernel.op in (POOL, RESIZE, PAD, CHANNEL_NORM)
    if taken or isinstance(kernel, Attention | Constant | Matmul):
        return "torch's kernels for the GPU take it"
    return None


@singledispatch
def step_of(kernel: Any, node: Node, device: torch.device) -> Step:
    """The step of `node`, whose kernel is `kernel`, with its weights on `device`."""
    raise TypeError(f"{type(kernel).__name__} is no kernel of a step")


@step_of.register
def _op(kernel: OpKernel, node: Node, device: torch.device) -> Step:
    """A norm, an activation, or what combines two values."""
    terms, axis, op = kernel.terms, kernel.channel_axis, kernel.op
    assert axis is not None  # layout.py chose one
    given = {f.name: getattr(kernel.call, f.name) for f in fields(kernel.call)}
    own = {n: t.to(device, node.dtype) for n, t in given.items() if isinstance(t, Tensor) and t.numel()}
    values = {
        "scale": vector_on(terms.scale, device),
        "shift": vector_on(terms.shift, device),
        "activation": terms.activation,
    }
    call = replace(kernel.call, **own, **{kernel.takes[n]: v for n, v in values.items() if n in kernel.takes})
    ours = any(candidate.name == "triton" for candidate in op.implementations)
    launch = triton_kernels(op.name).launch if ours else op.reference

    def run(inputs: list[Tensor], out: Tensor | None) -> Tensor:
        images = [pixels(value, axis) for value in inputs]
        tensors = dict(zip(kernel.fields, images, strict=False))
        if terms.residual:
            tensors[kernel.takes["residual"]] = images[-1]
        if ours and out is not None:
            launch(replace(call, **tensors, out=pixels(out, axis)))
            return out
        y: Tensor = launch(replace(call, **tensors))
        y = y.squeeze(-1) if len(node.shape) == 2 else y.movedim(1, axis)
        return y if out is None else out.copy_(y)

    return Step(f"{'triton' if ours else 'torch'} {op.name}", "", run, writes=ours)


@step_of.register
def _rearranged(kernel: Rearranged, node: Node, device: torch.device) -> Step:
    def run(inputs: list[Tensor], out: Tensor) -> None:
        x = kernel.apply(inputs[0])
        out.view(x.shape).copy_(x)

    return Step("torch copy", "its elements must move in memory", run)


@step_of.register
def _torch(kernel: Torch, node: Node, device: torch.device) -> Step:
    if node.op == "clone":
        return Step("torch copy", kernel.reason, lambda inputs, out: out.copy_(inputs[0]))
    if node.op == "getitem":
        return Step("torch getitem", kernel.reason, lambda inputs, out: inputs[0][node.args["index"]], writes=False)
    constants: list[Tensor] = []
    tree_map_only(Tensor, constants.append, node.args)
    safe = node.op.startswith(_SAFE) and not any(t.is_floating_point() for t in constants)
    wide = kernel.dtype != torch.float32 and not safe

    def here(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value.to(device) if isinstance(value, Tensor) else value

    moved = replace(node, args=tree_map(here, node.args))

    def run(inputs: list[Any], out: Tensor | None) -> Any:
        values = iter([_widened(value) for value in inputs] if wide else inputs)
        result = moved.call(lambda _: next(values))
        return result if out is None else out.copy_(result)

    return Step(f"torch {node.op}", kernel.reason, run, writes=False)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value
