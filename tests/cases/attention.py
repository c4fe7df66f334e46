"""Inputs of attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.attention import OP as OP
from fastnets.ops.attention import AttentionCall


@dataclass(frozen=True)
class Case:
    """Terms: shapes of what is added to the scores."""

    batch: tuple[int, ...]
    queries: int
    keys: int
    depth: int
    width: int
    terms: tuple[tuple[int, ...], ...] = ()

    @property
    def name(self) -> str:
        sizes = (*self.batch, self.queries, self.keys, self.depth, self.width)
        return "-".join(["x".join(map(str, shape)) for shape in (sizes, *self.terms)])


def make(case: Case, seed: int = 0) -> AttentionCall:
    """Normal scores, small enough for bfloat16, and values of one sign; of the second term, a third is -inf."""
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(*case.batch, case.queries, case.depth, generator=random)
    k = torch.randn(*case.batch, case.keys, case.depth, generator=random)
    v = 0.5 + torch.rand(*case.batch, case.keys, case.width, generator=random)
    scale = (0.5 + torch.rand(case.batch[-1], generator=random)) * case.depth**-0.5
    terms = [torch.randn(shape, generator=random) for shape in case.terms]
    if len(terms) > 1:
        terms[1].masked_fill_(terms[1] > 0.4, -torch.inf)
    bias, mask = (*terms, None, None)[:2]
    return AttentionCall(q, k, v, scale, bias, mask)


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 5e-6


CASES = [
    Case((2, 3), 49, 49, 32, 32),
    Case((4, 3), 49, 49, 32, 32, ((1, 3, 49, 49), (4, 1, 49, 49))),
    Case((2, 4, 3), 9, 17, 8, 16, ((3, 9, 17), (1, 4, 1, 9, 17))),
    Case((1, 2), 197, 197, 64, 64),
    Case((3,), 5, 300, 36, 20, ((5, 300),)),
    Case((1, 1), 700, 33, 7, 70),
    Case((1,), 65, 513, 16, 1, ((1, 513), (65, 513))),
    Case((2, 1), 1, 1, 1, 3),
    Case((0, 2), 4, 5, 8, 8),
]
