"""fastnets.nn: the results and gradients of torch's modules with the same parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import fastnets.nn as fast
from fastnets.errors import InputError

SIZES = {1: (13,), 2: (11, 9), 3: (7, 6, 9)}


def check(module: nn.Module, reference: nn.Module, dims: int, channels: int) -> None:
    """Outputs and all gradients against float64."""
    x = torch.randn(2, channels, *SIZES[dims], generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = x.detach().double().requires_grad_()
    reference = copy.deepcopy(reference).double()
    actual, expected = module(x), reference(exact)
    assert actual.shape == expected.shape
    assert float((actual.double() - expected).detach().norm() / expected.detach().norm()) < 1e-5
    seed = torch.randn(expected.shape, dtype=torch.float64)
    got = torch.autograd.grad(actual, [x, *module.parameters()], seed.float())
    wanted = torch.autograd.grad(expected, [exact, *reference.parameters()], seed)
    for a, b in zip(got, wanted, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-4


OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 2, "stride": 2, "groups": 2, "bias": False},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_conv(dims: int, options: dict[str, Any]) -> None:
    reference = getattr(nn, f"Conv{dims}d")(4, 6, **options)
    module = getattr(fast, f"Conv{dims}d")(4, 6, **options)
    module.load_state_dict(reference.state_dict())
    check(module, reference, dims, 4)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dilated_keeps_the_size(dims: int) -> None:
    module = getattr(fast, f"DilatedConv{dims}d")(3, 5, 3, 2)
    reference = getattr(nn, f"Conv{dims}d")(3, 5, 3, padding=2, dilation=2)
    reference.load_state_dict(module.state_dict())
    check(module, reference, dims, 3)
    assert module(torch.zeros(1, 3, *SIZES[dims])).shape[2:] == SIZES[dims]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_separable(dims: int) -> None:
    module = getattr(fast, f"SeparableConv{dims}d")(4, 6, 3, stride=2, padding=1, depth_multiplier=2)
    check(module, nn.Sequential(module.depthwise, module.pointwise), dims, 4)


def test_other_padding_modes_are_refused() -> None:
    with pytest.raises(InputError, match="padding_mode is 'reflect'"):
        fast.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")(torch.zeros(1, 3, 8, 8))


def test_optimize_runs_them_on_the_kernels() -> None:
    import fastnets

    model = nn.Sequential(fast.SeparableConv2d(3, 8, 3, padding=1), nn.ReLU(), fast.Conv2d(8, 4, 3)).eval()
    x = torch.randn(1, 3, 12, 12)
    optimized = fastnets.optimize(model, x)
    assert float((optimized(x) - model(x)).detach().norm() / model(x).detach().norm()) < 1e-5
    assert optimized.explain(runs=1).torch_share == 0
