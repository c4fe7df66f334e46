"""attention: softmax(q k^T * scale + bias + mask) v of each head, without the scores in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.arguments import at_least_float32, kernel_refusal
from fastnets.ops.layout import KERNEL_DTYPES, matrices5, threads, together
from fastnets.ops.library import register
from fastnets.ops.registry import Implementation, Op


@dataclass(frozen=True)
class AttentionCall:
    """The checked arguments; out: of any strides whose last is 1."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    bias: Tensor | None = None
    mask: Tensor | None = None
    out: Tensor | None = None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    implementation: str | None = None,
) -> Tensor:
    """softmax(q k^T * scale + bias + mask) v of each head; differentiable (https://arxiv.org/abs/1706.03762).

    Args:
        q: (*batch, heads, queries, depth), at most three axes of batch and heads together, floating point.
        k, v: (*batch, heads, keys, depth) and (*batch, heads, keys, width).
        scale: one number, or (heads,); None: depth ** -0.5.
        bias, mask: what is added to the scores, floating point, of shapes that broadcast to (*batch, heads, queries,
            keys): a table of relative positions, and 0 or -inf. A query all of whose scores are -inf gets 0.
        implementation: "native" (CPU, float32 or bfloat16) or "torch"; None takes the first that can run.

    Returns:
        (*batch, heads, queries, width).

    Raises:
        InputError: the arguments do not fit together, or `implementation` cannot run.
    """
    if not 3 <= q.dim() <= 5 or not q.is_floating_point():
        raise InputError(f"attention: q is {q.dtype} of shape {tuple(q.shape)}: pass (*batch, heads, queries, depth)")
    batch, keys = q.shape[:-2], k.shape[-2] if k.dim() > 1 else 0
    for name, tensor, last in (("k", k, q.shape[-1]), ("v", v, v.shape[-1] if v.dim() else 0)):
        if tensor.dtype != q.dtype or tensor.shape != (*batch, keys, last):
            raise InputError(
                f"attention: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}: pass {q.dtype} of shape "
                f"{(*batch, keys, last)}"
            )
    if not keys:
        raise InputError("attention: k has no keys: pass one or more")
    scores = (*batch, q.shape[-2], keys)
    for name, term in (("bias", bias), ("mask", mask)):
        if term is not None and not (term.is_floating_point() and _repeats(term.shape, scores)):
            raise InputError(
                f"attention: {name} is {term.dtype} of shape {tuple(term.shape)}: pass a floating-point tensor that "
                f"broadcasts to {scores}"
            )
    heads = batch[-1]
    factors = torch.as_tensor(q.shape[-1] ** -0.5 if scale is None else scale, dtype=torch.float32)
    if factors.shape not in ((), (1,), (heads,)):
        raise InputError(f"attention: scale has shape {tuple(factors.shape)}: pass one number, or ({heads},)")
    result: Tensor = _operator(q, k, v, factors.reshape(-1).expand(heads), bias, mask, implementation)
    return result


def _repeats(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    pairs = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(s in (1, n) for s, n in pairs)


def _refusal(call: AttentionCall) -> str | None:
    for term in (call.bias, call.mask):
        if term is not None and (term.device.type != "cpu" or term.dtype not in KERNEL_DTYPES):
            return f"a term is {term.dtype} on {term.device}; it needs torch.float32 or torch.bfloat16 on cpu"
    return kernel_refusal(call.q, call.k, call.v, call.out)


def run_attention(call: AttentionCall) -> Tensor:
    """By the kernel, into `out` or a new tensor whose heads lie beside each other: (*batch, queries, heads, width)."""
    out = result_of(call) if call.out is None else call.out
    heads = call.q.shape[:-2]
    scores = (*heads, call.q.shape[-2], call.k.shape[-2])
    target = _rows(out)
    terms = [None if t is None else matrices5(_rows(t).expand(scores)) for t in (call.bias, call.mask)]
    _C.attention(
        q=matrices5(_rows(call.q)),
        k=matrices5(_rows(call.k)),
        v=matrices5(_rows(call.v)),
        out=matrices5(target),
        scale=call.scale.detach().float().contiguous().numpy(),
        bias=terms[0],
        mask=terms[1],
        nthreads=threads(),
    )
    return out if target is out else out.copy_(target)


def result_of(call: AttentionCall) -> Tensor:
    """A new tensor for the result, uninitialised."""
    *batch, queries, _ = call.q.shape
    return call.q.new_empty((*batch[:-1], queries, batch[-1], call.v.shape[-1])).transpose(-2, -3)


def _rows(x: Tensor) -> Tensor:
    """`x`, or a copy whose rows' elements lie together."""
    return x if together(x, -1) else x.contiguous()


def _reference(call: AttentionCall) -> Tensor:
    q, k, v = (at_least_float32(t) for t in (call.q, call.k, call.v))
    scores = q @ k.transpose(-1, -2) * call.scale.to(q.dtype)[:, None, None]
    for term in (call.bias, call.mask):
        scores = scores if term is None else scores + term
    weights = scores.softmax(dim=-1)
    result = weights.masked_fill(scores.isneginf().all(-1, keepdim=True), 0) @ v
    return result.to(call.q.dtype)


def _run_in_torch(call: AttentionCall) -> Tensor:
    out = result_of(call) if call.out is None else call.out
    return out.copy_(_reference(call))


OP = Op(
    "attention",
    _reference,
    (
        Implementation("native", _refusal, run_attention),
        Implementation("torch", lambda call: None, _run_in_torch),
    ),
)


_operator = register(
    OP,
    "Tensor q, Tensor k, Tensor v, Tensor scale, Tensor? bias, Tensor? mask",
    AttentionCall,
    result=result_of,
)
