"""The engine runs the same layers on several values as one batch, and only where that is the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_graphs import SLOW, check, compare
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from fastnets.engine import Optimized, branches, optimize


class Net(nn.Module):
    """A small network of two levels; `function` says what is done with it."""

    def __init__(self, function: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)
        )
        self.last, self.other = nn.Conv2d(24, 3, 1), nn.Conv2d(3, 3, 1)

    def once(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z: Tensor = self.last(torch.cat([self.deep(y), y], 1))
        return z

    def head(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat([self.deep(self.first(x)), self.first(x)], 1)).mean((2, 3)).flatten(1)
        return y

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


FLIPS: list[list[int]] = [[], [2], [3], [2, 3]]


def flips(x: Tensor) -> list[Tensor]:
    return [x.flip(axes) for axes in FLIPS]


def back(values: list[Tensor]) -> list[Tensor]:
    return [value.flip(axes) for value, axes in zip(values, FLIPS, strict=True)]


def added(net: Net, x: Tensor) -> Tensor:
    a, b, c, d = back([net.once(v) for v in flips(x)])
    return (a + b + c + d) / 4


def nested(net: Net, x: Tensor) -> dict[str, Any]:
    a, b = net.once(x), net.once(x * 2 + 1)
    return {"both": (a, [b.relu()]), "one": net.other(a), "input": x}


def masked(net: Net, x: Tensor) -> Tensor:
    mask = x[:, :1].sigmoid()
    return torch.cat([net.first(v) * mask for v in flips(x)[1:]], 1)


def siamese(net: Net, x: Tensor) -> Tensor:
    halves = x.chunk(2, 3)
    a, b = (net.once(half) for half in halves)
    return a * b + halves[0]


def crossed(net: Net, x: Tensor) -> Tensor:
    """What may not be merged twice: each value would need the other."""
    a, b = net.other(x), net.other(x.flip(2))
    return a.relu().sigmoid() + b.sigmoid().relu() + a * b


def steps_of_both(net: Net, x: Tensor) -> Tensor:
    a, b = net.other(x), net.other(x.flip(2))
    return torch.cat([net.first(a), net.first(b), net.first(x)], 1)


def shuffled(net: Net, x: Tensor) -> Tensor:
    return torch.cat([F.pixel_shuffle(net.deep(net.first(v)), 4) for v in flips(x)], 1)


CASES: dict[str, tuple[Callable[[Net, Tensor], Any], int]] = {
    "sum": (added, 4),
    "mean": (lambda net, x: torch.stack(back([net.once(v) for v in flips(x)])).mean(0), 4),
    "join of channels": (lambda net, x: torch.cat([net.once(v) for v in flips(x)], 1), 4),
    "join of images": (lambda net, x: torch.cat([net.once(v) for v in flips(x)], 0), 4),
    "vectors": (lambda net, x: [net.head(v) for v in flips(x)], 4),
    "nested outputs, and a branch that goes on": (nested, 2),
    "a value that all read": (masked, 3),
    "siamese": (siamese, 2),
    "crossed": (crossed, 2),
    "one branch is longer": (steps_of_both, 2),
    "shuffled": (shuffled, 4),
}
APART: dict[str, Callable[[Net, Tensor], Any]] = {
    "one after the other": lambda net, x: net.other(net.other(x)),
    "other weights": lambda net, x: net.other(x) + net.first[0](x.flip(2))[:, :3],
    "other sizes": lambda net, x: (net.once(x), net.once(F.avg_pool2d(x, 2))),
}


def merged(optimized: Optimized) -> list[str]:
    return [row.kernel for row in optimized.explain(runs=1).rows if " branches" in row.layer]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_branches_run_as_a_batch(name: str, dtype: Any) -> None:
    function, count = CASES[name]
    net, x = Net(function).eval(), torch.randn(2, 3, 8, 12)
    optimized = optimize(net, x, dtype=dtype)
    expected = copy.deepcopy(net).double()(x.double())
    for _ in range(2):
        compare(optimized(x), expected, 1e-5 if dtype == "fp32" else 2e-2)
    layers = {row.layer for row in optimized.explain(runs=1).rows}
    assert any(layer.endswith(f" of {count} branches") for layer in layers)


@pytest.mark.parametrize("name", APART)
@torch.no_grad()
def test_what_differs_stays_apart(name: str) -> None:
    net, x = Net(APART[name]).eval(), torch.randn(1, 3, 16, 16)
    optimized = optimize(net, x)
    compare(optimized(x), copy.deepcopy(net).double()(x.double()), 1e-5)
    assert merged(optimized) == []


@torch.no_grad()
def test_large_values_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net(added).eval(), torch.randn(1, 3, 16, 16)
    # Of all branches the values of the lower level take 16 KiB at most, those of the upper 96.
    monkeypatch.setattr(branches, "cache_bytes", lambda level: (17 << 10) // torch.get_num_threads())
    optimized = optimize(net, x)
    compare(optimized(x), copy.deepcopy(net).double()(x.double()), 1e-5)
    assert len(merged(optimized)) == 1


class Several(nn.Module):
    """A random network on several values."""

    def __init__(self, net: nn.Module, count: int, joined: bool) -> None:
        super().__init__()
        self.net, self.count, self.joined = net, count, joined

    def forward(self, x: Tensor) -> Any:
        values = [self.net(x.flip(-1 - i % 2) * (i + 1)) for i in range(self.count)]
        return tree_map(lambda *parts: sum(parts), *values) if self.joined else values


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_random_branches(data: st.DataObject) -> None:
    net, shape = data.draw(graphs(2))
    check(Several(net, data.draw(st.integers(2, 3)), data.draw(st.booleans())).eval(), shape, "channels_first")
