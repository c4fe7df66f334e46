"""Moments that a convolution makes of its result, and the norms of the engine that take them."""

from __future__ import annotations

import copy

import pytest
import torch
from harness import relative_error, thread_count
from torch import Tensor, nn

import fastnets
from fastnets.engine.kernels import Moments
from fastnets.ops import PackedConv, conv_choice, conv_refusals
from fastnets.ops.conv_config import ConvConfig


def assert_moments(actual: Tensor, y: Tensor) -> None:
    flat = y.double().flatten(2)
    mean, variance = flat.mean(-1), flat.var(-1, correction=0)
    assert ((actual[..., 0] - mean).abs() <= 1e-6 * variance.sqrt() + 1e-7 * mean.abs()).all()
    torch.testing.assert_close(actual[..., 1], variance, rtol=1e-5, atol=0)


TILES = [(kernel, tile) for (kernel, _), tiles in conv_refusals.TILES.items() for tile in tiles]
TILES.append((3, conv_choice.STRIDED_TILE))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("kernel", "tile"), TILES, ids=str)
def test_of_every_tile(kernel: int, tile: tuple[int, int, int], share: bool) -> None:
    random = torch.Generator().manual_seed(0)
    axes = sum(outputs > 1 for outputs in tile)
    size, stride = (9, 13, 22)[-axes:], 2 if 3 in tile else 1
    x = torch.randn(2, 5, *size, generator=random)
    weight, bias = torch.randn(37, 5, *(kernel,) * axes, generator=random), 300 * torch.randn(37, generator=random)
    config = ConvConfig("winograd", tile, 5, share)
    results = []
    for threads in (1, 2):
        with thread_count(threads):
            conv = PackedConv(weight, bias, padding=kernel // 2, stride=stride, config=config)
            moments = torch.full((2, 37, 2), float("nan"), dtype=torch.float64)
            y = conv(x, moments=moments)
            assert torch.equal(y, conv(x))
            assert_moments(moments, y)
            results.append(moments)
    assert torch.equal(*results)


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_of_what_the_epilogue_makes(activation: str) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 8, 19, 30), torch.randn(21, 4, 3, 3)
    residual, moments = torch.randn(1, 21 * 2, 19, 30), torch.empty(1, 42, 2, dtype=torch.float64)
    conv = PackedConv(torch.cat([weight, weight]), padding=2, dilation=2, groups=2, activation=activation)
    conv.config = ConvConfig("winograd", (1, 4, 4), 7)
    assert_moments(moments, conv(x, residual=residual, moments=moments))


def test_of_other_algorithms() -> None:
    torch.manual_seed(0)
    x, moments = torch.randn(2, 8, 9, 30), torch.empty(2, 21, 2, dtype=torch.float64)
    conv = PackedConv(torch.randn(21, 8, 3, 3), config=ConvConfig("product", block=14))
    assert_moments(moments, conv(x, moments=moments))


def test_an_outlier_first() -> None:
    """The differences of a tile are from its first value."""
    torch.manual_seed(0)
    x, moments = torch.randn(1, 16, 24, 24, 24), torch.empty(1, 16, 2, dtype=torch.float64)
    x[:, :, 0, 0, 0] = 1e4
    conv = PackedConv(torch.randn(16, 16, 3, 3, 3), padding=1, config=ConvConfig("winograd", (4, 4, 4), 14))
    assert_moments(moments, conv(x, moments=moments))


def test_wrong_arguments() -> None:
    conv = PackedConv(torch.randn(21, 8, 3, 3), config=ConvConfig("winograd", (1, 4, 4), 14))
    x = torch.randn(2, 8, 9, 30)
    with pytest.raises(ValueError, match=r"moments has shape \(1, 21, 2\): pass \(batch, cout, 2\)"):
        conv(x, moments=torch.empty(1, 21, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="moments has dtype float32: pass float64"):
        conv(x, moments=torch.empty(2, 21, 2))


class Steps(nn.Sequential):
    def __init__(self, norm: nn.Module, *, dims: int = 3) -> None:
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        super().__init__(conv(8, 24, 3, padding=1), norm, nn.LeakyReLU(0.1), conv(24, 8, 1), nn.InstanceNorm3d(8))


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm3d(24), nn.InstanceNorm3d(24, affine=True), nn.GroupNorm(4, 24)], ids=str
)
@torch.no_grad()
def test_norms_of_a_plan(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = Steps(norm).eval(), torch.randn(2, 8, 17, 18, 19)
    expected = copy.deepcopy(model).double()(x.double())
    for threads in (1, 2):
        with thread_count(threads):
            optimized = fastnets.optimize(model, x)
            kernels = [node.kernel for node in optimized.plan_for(x).graph.nodes]
            assert sum(isinstance(kernel, Moments) for kernel in kernels) == 1  # the 1x1 convolution makes none
            assert relative_error(optimized(x), expected) <= 1e-5
            assert [row.kernel.split()[0] for row in optimized.explain(x, runs=1).rows] == ["conv", "norm"] * 2


@torch.no_grad()
def test_norms_in_bf16_take_their_own() -> None:
    model, x = Steps(nn.InstanceNorm3d(24)).eval(), torch.randn(1, 8, 12, 12, 12)
    optimized = fastnets.optimize(model, x, dtype="bf16")
    assert not any(isinstance(node.kernel, Moments) for node in optimized.plan_for(x).graph.nodes)
    assert relative_error(optimized(x), copy.deepcopy(model).double()(x.double())) <= 2e-2


@torch.no_grad()
def test_a_norm_writes_over_what_it_normalizes() -> None:
    model, x = (
        nn.Sequential(nn.Conv2d(3, 16, 4), nn.InstanceNorm2d(16), nn.Conv2d(16, 2, 1)).eval(),  # 4: not Winograd's
        torch.randn(1, 3, 64, 64),
    )
    optimized = fastnets.optimize(model, x)
    assert relative_error(optimized(x), model(x)) <= 1e-5
    storage = optimized.plan_for(x).storage
    conv, norm = (n for n in optimized.plan_for(x).graph.nodes if n.op != "input" and n.shape[1] == 16)
    assert storage.buffer_of[conv] is storage.buffer_of[norm]
