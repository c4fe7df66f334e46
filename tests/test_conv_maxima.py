"""Maxima that a convolution makes of its results, and the pools of the engine that take them."""

from __future__ import annotations

import pytest
import torch
from harness import poisoned, relative_error, thread_count
from torch import Tensor, nn
from torch.nn import functional

import fastnets
from fastnets import _C
from fastnets.engine.kernels import Written
from fastnets.ops import PackedConv, conv_refusals
from fastnets.ops.conv_config import ConvConfig

POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
TILES = [(kernel, tile) for (kernel, _), tiles in conv_refusals.TILES.items() for tile in tiles]


def memory_for(y: Tensor) -> Tensor:
    """NaN in a slice of a wider tensor, half the size of `y`."""
    size = [n // 2 for n in y.shape[2:]]
    wide = torch.full((y.shape[0], *size, y.shape[1] + 3), float("nan"), dtype=y.dtype)
    return wide[..., 2:-1].movedim(-1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("kernel", "tile"), TILES, ids=str)
def test_of_every_tile(kernel: int, tile: tuple[int, int, int], share: bool, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    axes = sum(outputs > 1 for outputs in tile)
    x = torch.randn(2, 5, *(9, 14, 23)[-axes:], generator=random).to(dtype)
    weight, bias = torch.randn(37, 5, *(kernel,) * axes, generator=random).to(dtype), torch.randn(37, generator=random)
    residual = torch.randn(2, 37, *x.shape[2:], generator=random).to(dtype)
    config = ConvConfig("winograd", tile, 5, share)
    for threads in (1, 2):
        with thread_count(threads), poisoned():
            conv = PackedConv(weight, bias, padding=kernel // 2, activation="relu6", config=config)
            y = conv(x, residual=residual)
            beside, alone = memory_for(y), memory_for(y)
            assert torch.equal(conv(x, residual=residual, out=torch.empty_like(y), maxima=beside), y)
            assert conv(x, residual=residual, maxima=alone) is alone
            expected = POOL[axes](y.float(), 2).to(dtype)
            assert torch.equal(beside, expected)
            assert torch.equal(alone, expected)


def test_not_of_dilated_results() -> None:
    """A tile of them has none that lie together, and so no window."""
    x, weight = torch.randn(1, 16, 30, 30), torch.randn(32, 16, 3, 3) / 12
    conv = PackedConv(weight, padding=2, dilation=2, config=ConvConfig("winograd", (1, 4, 4), 14))
    assert not conv.makes_maxima(x.shape)
    with pytest.raises(ValueError, match="maxima need dilation 1"):
        conv(x, maxima=memory_for(torch.empty(1, 32, 30, 30)))
    for dilation in (1, 2):
        layer = nn.Conv2d(16, 32, 3, padding=dilation, dilation=dilation)
        model = nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(2)).eval()
        with torch.no_grad():
            assert relative_error(fastnets.optimize(model, x)(x), model(x)) <= 1e-5


def test_stores_past_the_caches() -> None:
    x, weight = torch.randn(1, 16, 30, 44), torch.randn(64, 16, 3, 3) / 12
    conv = PackedConv(weight, padding=1, config=ConvConfig("winograd", (1, 6, 6), 14, stream=True))
    y = conv(x)
    maxima = memory_for(y).contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv(x, out=torch.empty_like(y), maxima=maxima), y)
    assert torch.equal(maxima, functional.max_pool2d(y, 2))


def test_not_a_number_stays() -> None:
    x = torch.randn(1, 4, 12, 12)
    x[0, 0, 7, 3] = float("nan")
    conv = PackedConv(torch.randn(8, 4, 3, 3), padding=1, config=ConvConfig("winograd", (1, 4, 4), 7))
    y = conv(x)
    maxima = memory_for(y)
    conv(x, maxima=maxima)
    torch.testing.assert_close(maxima, functional.max_pool2d(y, 2), rtol=0, atol=0, equal_nan=True)


def test_what_cannot_be_is_refused() -> None:
    x, weight = torch.randn(1, 8, 12, 12), torch.randn(8, 8, 3, 3)
    winograd = ConvConfig("winograd", (1, 4, 4), 7)
    for config, activation, shape, message in (
        (ConvConfig("product", block=14), "none", (1, 8, 6, 6), "only winograd makes maxima"),
        (winograd, "silu", (1, 8, 6, 6), "with no activation or one that clamps"),
        (winograd, "none", (1, 8, 5, 6), "half its size"),
        (winograd, "none", (1, 7, 6, 6), r"maxima has shape \(1, 7, 1, 6, 6\): pass the batch"),
    ):
        conv = PackedConv(weight, padding=1, activation=activation, config=config)
        with pytest.raises(ValueError, match=message):
            conv(x, maxima=torch.empty(shape, memory_format=torch.channels_last))
    assert PackedConv(weight, padding=1, config=winograd).makes_maxima(x.shape)
    assert not PackedConv(weight, padding=1, activation="silu", config=winograd).makes_maxima(x.shape)
    strided = PackedConv(weight, padding=1, stride=2, config=ConvConfig("winograd", (1, 3, 3), 7))
    assert not strided.makes_maxima(x.shape)


class Encoder(nn.Module):
    """Pools whose input is read again, by a join and by a sum, and one that alone reads its input."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, pool, norm = ((nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d), (nn.Conv3d, nn.MaxPool3d, nn.BatchNorm3d))[
            axes - 2
        ]
        self.first = nn.Sequential(conv(8, 32, 3, padding=1), norm(32), nn.ReLU())
        self.second, self.third = conv(32, 32, 3, padding=1), conv(32, 32, 3, padding=1)
        self.pool, self.up = pool(2), nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.first(x)
        half = self.second(self.pool(wide))
        quarter = self.pool(torch.relu(self.third(half)))
        return torch.cat([self.pool(half), quarter], 1) + torch.cat([wide, self.up(half)], 1).mean()


@pytest.mark.parametrize("axes", [2, 3])
def test_pools_of_a_network(axes: int) -> None:
    torch.manual_seed(0)
    model, size = Encoder(axes).eval(), (1, 8, *(56, 48, 64)[:axes])
    x = torch.randn(size) if axes == 2 else torch.randn(1, 8, 32, 24, 40)
    with torch.no_grad():
        expected = model(x)
    for dtype, limit in (("fp32", 1e-4), ("bf16", 2e-2)):
        optimized = fastnets.optimize(model, x, dtype=dtype)
        assert relative_error(optimized(x), expected) <= limit
        if dtype == "bf16" and _C.has_tiles():
            continue  # direct convolutions by tiles take less time than Winograd's, and make no maxima
        kernels = [row.kernel for row in optimized.explain(x).rows]
        assert sum("maxima" in kernel for kernel in kernels) == 3
        assert "pool" not in kernels
        nodes = optimized.plan_for(x).graph.nodes
        assert sum(isinstance(node.kernel, Written) for node in nodes) >= 2  # two of them beside the results


def test_other_pools_stay() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3, padding=1)
    for pool in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1), nn.AvgPool2d(2), nn.MaxPool2d(2, ceil_mode=True)):
        model, x = nn.Sequential(conv, pool).eval(), torch.randn(1, 16, 29, 31)
        optimized = fastnets.optimize(model, x)
        assert any(row.kernel.startswith("pool") for row in optimized.explain(x).rows)
        with torch.no_grad():
            assert relative_error(optimized(x), model(x)) <= 1e-4
