"""Rows that lie apart in the arena: who gets room, and that results do not depend on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from fastnets import optimize
from fastnets.engine import plan as plan_module
from fastnets.engine.plan import Plan
from fastnets.engine.storage import ALIGNMENT


class Level(nn.Module):
    """Two convolutions of what joins two others, one of them pooled, and a sum."""

    def __init__(self, axes: int, channels: int = 32) -> None:
        super().__init__()
        conv, pool = (nn.Conv2d, nn.MaxPool2d(3, 1, 1)) if axes == 2 else (nn.Conv3d, nn.MaxPool3d(3, 1, 1))
        norm = nn.InstanceNorm2d if axes == 2 else nn.InstanceNorm3d
        self.first, self.second = conv(channels, channels, 3, padding=1), conv(channels, channels, 3, padding=1)
        self.joined, self.last = conv(2 * channels, channels, 3, padding=1), conv(channels, 8, 1)
        self.norm, self.pool = norm(channels, affine=True), pool

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        z = self.joined(torch.cat([self.second(y), self.pool(y)], 1)).relu()
        result: Tensor = self.last(self.second(z) + y)
        return result


SIZES = {2: (1, 32, 35, 48), 3: (1, 32, 12, 13, 32)}


def strides_of(plan: Plan) -> dict[str, list[tuple[int, int]]]:
    """Lines from a row to the next, and those that a row fills, by op."""
    found: dict[str, list[tuple[int, int]]] = {}
    for node, layout in plan.layouts.items():
        if node.kernel is None or len(node.shape) < 4:
            continue
        row, filled = layout.stride(-2), layout.stride(-1) * node.shape[-1]
        found.setdefault(node.op, []).append(
            (row * layout.itemsize // ALIGNMENT, filled * layout.itemsize // ALIGNMENT)
        )
    return found


def without_room(monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, dtype: str) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "spread", lambda graph, layouts: None)
        result: Tensor = optimize(model, x, dtype=dtype)(x)
    return result


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("axes", [2, 3])
@torch.no_grad()
def test_results_do_not_depend_on_room(axes: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(axes)
    model, x = Level(axes).eval(), torch.randn(SIZES[axes])
    optimized = optimize(model, x, dtype=dtype)
    assert torch.equal(optimized(x), without_room(monkeypatch, model, x, dtype))


@pytest.mark.parametrize("axes", [2, 3])
@torch.no_grad()
def test_rows_that_tiles_read_have_room(axes: int) -> None:
    model, x = Level(axes).eval(), torch.randn(SIZES[axes])
    plan = optimize(model, x).plan_for(x)
    lines = strides_of(plan)
    assert {row % 8 for row, _ in lines["cat"]} == {3}
    assert all(row > filled for row, filled in lines["cat"])
    *_, (row, filled) = [pair for op, pairs in lines.items() if op.startswith("conv") for pair in pairs]
    assert row == filled  # the result of the network


@pytest.mark.parametrize("last", [[nn.Conv2d(32, 64, 1)], [nn.Flatten(), nn.Linear(32 * 35 * 48, 2)], []])
@torch.no_grad()
def test_what_others_read_as_one_run_has_none(last: Sequence[nn.Module]) -> None:
    model, x = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), *last).eval(), torch.randn(SIZES[2])
    for pairs in strides_of(optimize(model, x).plan_for(x)).values():
        assert all(row == filled for row, filled in pairs)
