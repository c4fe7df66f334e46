"""Winograd's convolution: every tile against float64, and weights that are kept as taps."""

import math
from dataclasses import replace

import pytest
import torch
from harness import poisoned, relative_error, thread_count
from torch.nn import functional

from fastnets import _C
from fastnets.ops.conv import ConvConfig, PackedConv
from fastnets.ops.conv_refusals import TILES


@pytest.mark.parametrize(("taps", "axes"), list(TILES), ids=str)
def test_every_winograd_tile(taps: int, axes: int) -> None:
    """Against float64, where tiles end beyond the image, with two groups of which each fills no vector."""
    random = torch.Generator().manual_seed(0)
    size = {1: (67,), 2: (17, 25), 3: (9, 10, 13)}[axes]
    x, bias = torch.randn(2, 38, *size, generator=random), torch.randn(42, generator=random)
    weight = torch.randn(42, 19, *(taps,) * axes, generator=random) / math.sqrt(19 * taps**axes)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    for dilation in (1, 2):
        padding = dilation * (taps // 2)
        expected = function(x.double(), weight.double(), bias.double(), 1, padding, dilation, 2)
        for tile in TILES[taps, axes]:
            config = ConvConfig("winograd", tile, 5)
            packed = PackedConv(weight, bias, padding=padding, dilation=dilation, groups=2, config=config)
            with poisoned():
                assert relative_error(packed(x), expected) <= 1e-5, tile


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_winograd_transforms_taps_along_the_way(axes: int, share: bool) -> None:
    """In blocks of channels, of which the last one is not full, and in groups; from less memory."""
    random = torch.Generator().manual_seed(0)
    size, inputs = {1: (67,), 2: (17, 25), 3: (9, 10, 13)}[axes], {1: 150, 2: 85, 3: 70}[axes]
    x, outputs = torch.randn(1, 2 * inputs, *size, generator=random), 2 * 4 * _C.conv_lanes()
    weight = torch.randn(outputs, inputs, *(3,) * axes, generator=random) / math.sqrt(inputs * 3**axes)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    expected = function(x.double(), weight.double(), None, 1, 1, 1, 2)
    for tile in TILES[3, axes]:
        config = ConvConfig("winograd", tile, 31, share)
        whole, taps = (PackedConv(weight, padding=1, groups=2, config=replace(config, taps=t)) for t in (False, True))
        for threads in (1, 2):
            with poisoned(), thread_count(threads):
                assert relative_error(taps(x), expected) <= 1e-5, tile
        whole(x)
        assert taps.bytes * (tile[2] + 2) == whole.bytes * 3


@pytest.mark.parametrize("groups", [1, 2])
def test_threads_that_are_too_many_for_the_tiles_split_the_output_channels(groups: int) -> None:
    """Three whole panels and a part of one, for one block of tiles: each output comes from one thread, as from one."""
    random = torch.Generator().manual_seed(0)
    outputs = groups * (6 * _C.conv_lanes() + 5)
    x, weight = torch.randn(1, 24, 11, 13, generator=random), torch.randn(outputs, 24 // groups, 3, 3, generator=random)
    residual = torch.randn(1, outputs, 11, 13, generator=random)
    expected = functional.conv2d(x.double(), weight.double(), None, 1, 1, 1, groups) + residual.double()
    packed = PackedConv(weight, padding=1, groups=groups, config=ConvConfig("winograd", (1, 4, 4), 31))
    with thread_count(1):
        alone = packed(x, residual=residual)
    assert relative_error(alone, expected) <= 1e-5
    for threads in (2, 3, 9):
        with poisoned(), thread_count(threads):
            assert torch.equal(packed(x, residual=residual), alone)


def test_taps_of_half_a_panel_are_refused() -> None:
    packed = PackedConv(torch.randn(21, 8, 3, 3), padding=1, config=ConvConfig("winograd", (1, 4, 4), 14, taps=True))
    with pytest.raises(ValueError, match="keeps taps only of kernel 3 with stride 1, for whole panels"):
        packed(torch.randn(1, 8, 9, 9))
