"""Random graphs through optimize(), against the module in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from engine_graphs import graphs
from harness import poisoned, relative_error
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from fastnets.engine import optimize

TOLERANCE = 1e-5
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def placed(x: Tensor, placement: str) -> Tensor:
    """The same values elsewhere in memory."""
    if placement == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if placement == "slice":
        wide = torch.full((*x.shape[:-1], x.shape[-1] + 3), float("nan"))
        return wide[..., 1:-2].copy_(x)
    return x


def compare(actual: Any, expected: Any, limit: float) -> None:
    mine, structure = tree_flatten(actual)
    want, wanted = tree_flatten(expected)
    assert structure == wanted
    for i, (a, b) in enumerate(zip(mine, want, strict=True)):
        error = relative_error(a, b)
        assert error <= limit, f"output {i}: relative error {error:.2e} > {limit:.0e}"


def check(net: nn.Module, shape: tuple[int, ...], placement: str, device: str = "cpu") -> None:
    """Two inputs one after the other: the second run finds what the first left in memory."""
    single = copy.deepcopy(net).float()
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    with torch.inference_mode():
        expected = [net(x.double()) for x in inputs]
        own = [single(x) for x in inputs]
    pairs = zip(tree_flatten(own)[0], tree_flatten(expected)[0], strict=True)
    # A norm of nearly equal values amplifies rounding in torch too.
    limit = max(TOLERANCE, *(4 * relative_error(a, b) for a, b in pairs))
    # What fills memory with NaN also forbids cuBLAS on a GPU.
    with nullcontext() if torch.cuda.is_available() else poisoned(), torch.inference_mode():
        optimized = optimize(single, placed(inputs[0], placement), device=device)
        actual = [tree_map(Tensor.cpu, optimized(placed(x, placement))) for x in inputs]
    for mine, want in zip(actual, expected, strict=True):
        compare(mine, want, limit)


@pytest.mark.parametrize("dims", [2, 3])
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_random_graphs(dims: int, data: st.DataObject) -> None:
    net, shape = data.draw(graphs(dims))
    note(f"{net} of {shape}")
    check(net, shape, data.draw(st.sampled_from(["channels_first", "channels_last", "slice"])))


class WithItself(nn.Module):
    """A value and the same one in another order, which may not be written over while it is read."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], order: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.join, self.order = join, order
        self.before, self.after = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.join(x, self.order(x)))


@pytest.mark.parametrize("join", [torch.add, torch.mul, torch.sub], ids=["add", "mul", "sub"])
def test_a_value_beside_itself_in_another_order(join: Callable[[Tensor, Tensor], Tensor]) -> None:
    for order in (
        lambda x: x.transpose(-1, -2),
        lambda x: x.flip(-1),
        lambda x: x[:, [1, 0]],
        lambda x: x[:, :1],
        lambda x: x[..., :1],
        lambda x: x,
    ):
        check(WithItself(join, order).double().eval(), (1, 1, 19, 19), "channels_last")


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(-1, -2)


@torch.inference_mode()
def test_an_output_that_lies_in_the_input_outlives_the_next_call() -> None:
    wide = torch.arange(36.0).view(1, 1, 4, 9)
    x = wide[..., :4]  # not as the plan has it: copied
    optimized = optimize(Turned().eval(), x)
    first = optimized(x)
    optimized(x + 1)
    assert torch.equal(first, x.transpose(-1, -2))
