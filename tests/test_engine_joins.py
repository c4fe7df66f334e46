"""Joins of joins: where values lie that several joins read."""

from __future__ import annotations

import pytest
import torch
from harness import poisoned
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastnets.engine import optimize

Step = tuple[str, tuple[int, ...]]


class Joins(nn.Module):
    """Values made of others before them.

    Args:
        steps: a kind, and the numbers of the values that it reads; 0 is the input.
        outputs: numbers of the values that it returns.
    """

    def __init__(self, steps: list[Step], outputs: list[int]) -> None:
        super().__init__()
        self.steps, self.outputs = steps, outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for number, (kind, reads) in enumerate(self.steps):
            parts = [values[i] for i in reads]
            if kind == "cat":
                values.append(torch.cat(parts, 1))
            elif kind == "scale":
                values.append(parts[0] * 1.5 + number)
            elif kind == "mix":  # the sum, with other factors
                values.append(parts[0] * 0.5 + parts[1])
            else:
                values.append(parts[0][:, 1:] if parts[0].shape[1] > 1 else parts[0])
        return tuple(values[i] for i in self.outputs)


def check(model: Joins, channels: int, dtype: str = "fp32") -> None:
    """Twice, as the second run finds what the first left in memory."""
    inputs = [torch.randint(-8, 8, (1, channels, 3, 2), generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    with poisoned(), torch.inference_mode():
        optimized = optimize(model.eval(), inputs[0].float(), dtype=dtype)
        for x in inputs:
            for actual, expected in zip(optimized(x.float()), model(x.float()), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-6 if dtype == "fp32" else 0.05, atol=1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_join_in_another_whose_parts_are_in_a_third(dtype: str) -> None:
    """As in U-Net++: cat(cat(a, b), c), and later cat(a, b, d)."""
    a, b, d, after = ("scale", (0,)), ("scale", (1,)), ("scale", (2,)), ("scale", (5,))
    joins = [("cat", (1, 2)), ("cat", (3, 4)), ("cat", (1, 2, 4))]
    check(Joins([a, b, joins[0], d, joins[1], after, joins[2]], [6, 7]), 2, dtype)


@st.composite
def joins(draw: st.DrawFn) -> Joins:
    steps: list[Step] = []
    widths = [2]
    for _ in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from(["cat", "cat", "cat", "scale", "scale", "mix", "slice"]))
        first = draw(st.integers(0, len(steps)))
        fit = [i for i, width in enumerate(widths) if width == widths[first] or kind != "mix"]
        others = draw(st.integers(1, 2)) if kind == "cat" else int(kind == "mix")
        reads = (first, *(draw(st.sampled_from(fit)) for _ in range(others)))
        width = {"cat": sum(widths[i] for i in reads), "slice": max(1, widths[first] - 1)}.get(kind, widths[first])
        if width <= 40:
            steps.append((kind, reads))
            widths.append(width)
    outputs = draw(st.lists(st.integers(0, len(steps)), min_size=1, max_size=3, unique=True))
    return Joins(steps, sorted({len(steps), *outputs}))


@settings(max_examples=60, deadline=None)
@given(model=joins())
def test_any_joins(model: Joins) -> None:
    note(f"{model.steps} {model.outputs}")
    check(model, 2)
