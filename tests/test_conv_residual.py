"""Convolutions that write over what they add: every algorithm gives the same to the last digit."""

import pytest
import torch

from fastnets.ops.conv import ConvConfig, PackedConv
from fastnets.ops.layout import channels_last

LAYERS = [
    ("product", 20, 70, 3, 1),
    ("product", 48, 70, 1, 1),
    ("winograd", 20, 70, 3, 1),
    ("planar", 3, 70, 5, 1),
    ("narrow", 50, 5, 1, 1),
    ("grouped", 32, 32, 3, 8),
    ("depthwise", 37, 37, 3, 37),
]


@pytest.mark.parametrize("activation", ["relu", "silu"])  # in registers, and after the store
@pytest.mark.parametrize(
    ("algorithm", "cin", "cout", "kernel", "groups", "dtype"),
    [
        *((*layer, dtype) for layer in LAYERS for dtype in (torch.float32, torch.bfloat16)),
        ("strassen", 64, 128, 1, 1, torch.float32),
    ],
    ids=str,
)
def test_the_output_may_lie_over_the_residual(
    algorithm: str, cin: int, cout: int, kernel: int, groups: int, activation: str, dtype: torch.dtype
) -> None:
    """Each element is read before it is written, and by the thread that writes it."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, cin, 23, 29, generator=random).to(dtype)
    weight = torch.randn(cout, cin // groups, kernel, kernel, generator=random).to(dtype)
    tile, block = ((1, 6, 6), 5) if algorithm == "winograd" else ((1, 1, 1), 60)
    packed = PackedConv(
        *(weight, torch.randn(cout, generator=random)),
        padding=kernel // 2,
        groups=groups,
        activation=activation,
        config=ConvConfig(algorithm, tile, block),
    )
    residual = channels_last(torch.randn(2, cout, 23, 29, generator=random).to(dtype))
    expected = packed(x, residual=residual)
    over = residual.clone()
    assert packed(x, residual=over, out=over) is over
    assert torch.equal(over, expected)
