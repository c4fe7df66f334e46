"""Values that a network divides by: pixels of zeros stay zeros."""

from __future__ import annotations

import copy

import pytest
import torch
from harness import relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from fastnets import _C
from fastnets.engine import Optimized, optimize
from fastnets.engine.kernels_conv import Conv, Separable
from fastnets.ops.conv import PackedConv
from fastnets.ops.conv_choice import MIXING


class Cosines(nn.Module):
    """Vectors of length 1 of what a layer makes of an image with a padded border."""

    def __init__(self, layer: nn.Module, *, dim: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dim = layer, dim

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layer(x), dim=self.dim)


class Rows(Cosines):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(2).transpose(1, 2))


def conv(kernel: int) -> nn.Conv2d:
    return nn.Conv2d(256, 256, kernel, padding=kernel // 2, bias=False)


def separable() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(256, 256, 3, padding=1, groups=256, bias=False), conv(1))


class Residual(nn.Module):
    """Zeros of the sum need those of both convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3), conv(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return y + self.second(x)


def bordered() -> Tensor:
    """An image with zeros right of column 13, some of them in the tiles of others."""
    x = torch.randn(1, 256, 24, 24, generator=torch.Generator().manual_seed(1))
    x[..., 13:] = 0
    return x


def algorithms(optimized: Optimized, x: Tensor) -> list[str]:
    kernels = [node.kernel for node in optimized.plan_for(x).graph.nodes]
    return [kernel.config.algorithm for kernel in kernels if isinstance(kernel, Conv) and kernel.config is not None]


NETWORKS = {
    "linear": Rows(nn.Linear(256, 256, bias=False), dim=-1),
    "1x1": Cosines(conv(1), dim=1),
    "3x3": Cosines(conv(3), dim=1),
    "separable": Cosines(separable(), dim=1),
    "transposed": Cosines(nn.ConvTranspose2d(256, 64, 4, 2, 1, bias=False), dim=1),
    "upsampled": Cosines(nn.Sequential(nn.Upsample(scale_factor=2), conv(3)), dim=1),
    "residual": Cosines(Residual(), dim=1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_zeros_stay_zeros(name: str) -> None:
    model, x = NETWORKS[name].eval(), bordered()
    optimized, exact = optimize(model, x), copy.deepcopy(model).double()
    with torch.inference_mode():
        actual, expected = optimized(x), exact(x.double())
    assert relative_error(actual, expected) <= 1e-5
    assert not MIXING & set(algorithms(optimized, x))
    kernels = [node.kernel for node in optimized.plan_for(x).graph.nodes]
    assert [kernel.direct for kernel in kernels if isinstance(kernel, Separable)] == [True] * (name == "separable")


def test_without_a_quotient_the_faster_algorithms_run() -> None:
    """Which also says that the networks above would run by them. Strassen's: of vectors of 16, not on Intel's cores."""
    x = bordered()
    wide = _C.conv_lanes() == 16 and not _C.is_intel()
    for name, algorithm in (("1x1", "strassen" if wide else "product"), ("3x3", "winograd")):
        optimized = optimize(NETWORKS[name].layer.eval(), x)
        with torch.inference_mode():
            optimized(x)
        assert algorithms(optimized, x) == [algorithm]


def test_tuning_keeps_to_direct_sums() -> None:
    layer = PackedConv(torch.randn(64, 64, 3, 3), padding=1, direct=True)
    assert layer.tune((1, 64, 24, 24)).algorithm not in MIXING
    assert layer.prepare((1, 64, 24, 24)).algorithm not in MIXING
