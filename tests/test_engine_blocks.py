"""The engine's inverted bottlenecks: where 1x1, depthwise and 1x1 convolutions run as one kernel, and what it gives."""

from __future__ import annotations

import copy

import pytest
import torch
from harness import relative_error, thread_count
from torch import Tensor, nn

from fastnets import ops
from fastnets.engine import Optimized, optimize
from fastnets.engine.kernels_conv import InvertedBottleneck, Separable


class Block(nn.Module):
    """That of MobileNetV2, with batch norms that are not the identity."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, kernel: int = 3, dilation: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        middle = 4 * cin
        self.expand = nn.Sequential(nn.Conv2d(cin, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6())
        padding = dilation * (kernel // 2)
        depthwise = nn.Conv2d(middle, middle, kernel, stride, padding, dilation, groups=middle)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(middle), nn.SiLU())
        self.project = nn.Sequential(nn.Conv2d(middle, cout, 1, bias=False), nn.BatchNorm2d(cout))
        self.adds = stride == 1 and cin == cout
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class ReadsTheMiddle(Block):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.expand(x)
        return self.project(self.depthwise(y)), y


def kernels(optimized: Optimized, x: Tensor) -> list[type]:
    return [type(node.kernel) for node in optimized.plan_for(x).graph.nodes if node.kernel is not None]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "block",
    [Block(12, 12), Block(12, 20, stride=2), Block(9, 9, kernel=5), Block(16, 24, stride=2, kernel=5)],
    ids=["residual", "stride2", "5x5", "5x5-stride2"],
)
@torch.no_grad()
def test_one_kernel(block: Block, dtype: str) -> None:
    block, x = block.eval(), torch.randn(2, block.expand[0].in_channels, 40, 31)
    expected = copy.deepcopy(block).double()(x.double())
    with thread_count(1):
        optimized = optimize(block, x, dtype=dtype)
        assert kernels(optimized, x).count(InvertedBottleneck) == 1
        assert len(kernels(optimized, x)) == (1 if dtype == "fp32" else 3)  # with the casts at both ends
        actual = optimized(x)
        row = next(r for r in optimized.explain(x, runs=1).rows if r.kernel.startswith("inverted_bottleneck"))
    assert relative_error(actual, expected) <= (1e-5 if dtype == "fp32" else 1e-2)
    rows = 40 // block.depthwise[0].stride[0] * -(-31 // block.depthwise[0].stride[0])
    cin, middle, cout = block.expand[0].in_channels, block.expand[0].out_channels, block.project[0].out_channels
    taps = block.depthwise[0].kernel_size[0] ** 2
    assert row.mflop == pytest.approx(2 * 2 * middle * (40 * 31 * cin + rows * (taps + cout)) / 1e6)


@torch.no_grad()
def test_threads_with_few_rows_keep_two_kernels() -> None:
    block, x = Block(8, 8).eval(), torch.randn(1, 8, 20, 20)
    expected = block(x)
    for threads, kind in ((1, InvertedBottleneck), (2, Separable)):
        with thread_count(threads):
            optimized = optimize(block, x)
            assert kind in kernels(optimized, x)
            assert relative_error(optimized(x), expected) <= 1e-5


@pytest.mark.parametrize("block", [ReadsTheMiddle(8, 8), Block(8, 8, dilation=2)], ids=["middle", "dilation"])
@torch.no_grad()
def test_where_two_kernels_are_needed(block: Block) -> None:
    block, x = block.eval(), torch.randn(1, 8, 40, 20)
    with thread_count(1):
        optimized = optimize(block, x)
        assert InvertedBottleneck not in kernels(optimized, x)
        actual, expected = optimized(x), block(x)
    pairs = zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]
    for a, b in pairs:
        assert relative_error(a, b) <= 1e-5


@torch.no_grad()
def test_our_own_operator() -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expand, self.depthwise = nn.Parameter(torch.randn(20, 6)), nn.Parameter(torch.randn(20, 1, 3, 3))
            self.project, self.bias = nn.Parameter(torch.randn(6, 20)), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            kinds = {"expand_activation": "relu6", "middle_activation": "leaky", "middle_parameters": (0.2,)}
            weights = (self.expand, self.depthwise, self.project, self.bias)
            return ops.inverted_bottleneck(x, *weights, padding=((1, 0), (0, 1)), **kinds, activation="relu")

    model, x = Calls().eval(), torch.randn(2, 6, 9, 10)
    optimized = optimize(model, x)
    assert kernels(optimized, x) == [InvertedBottleneck]
    assert relative_error(optimized(x), copy.deepcopy(model).double()(x.double())) <= 1e-5
