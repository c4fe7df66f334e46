"""Tiled equals whole: random graphs in 2D and 3D, and the cases that random graphs reach rarely."""

from __future__ import annotations

import pytest
import torch
from graphs import networks
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from fastnets.tiling import infer

# float64 networks: what is left is the order of summation, far below a seam.
TOLERANCE = 1e-9
SEAMS = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _assert_same(tiled: torch.Tensor, whole: torch.Tensor) -> None:
    assert tiled.shape == whole.shape
    scale = float(whole.abs().max()) or 1.0
    worst = float((tiled - whole).abs().max()) / scale
    assert worst <= TOLERANCE, f"max |tiled - whole| is {worst:.2e} of the output's range"


def _check_graph(net: nn.Module, size: list[int], tile: list[int], seed: int) -> None:
    image = torch.randn(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    try:
        with torch.no_grad():
            whole = net(image)
    except RuntimeError:
        assume(False)  # the layers shrink this image to nothing
    assume(whole.numel() > 0)
    tiled = infer(net, image, tile=tile)
    _assert_same(tiled, whole)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@SEAMS
@given(net=networks(2), size=st.lists(st.integers(9, 48), min_size=2, max_size=2), data=st.data())
def test_random_graphs_2d_have_no_seams(net: nn.Module, size: list[int], data: st.DataObject) -> None:
    tile = data.draw(st.lists(st.integers(1, 24), min_size=2, max_size=2))
    _check_graph(net, size, tile, data.draw(st.integers(0, 9)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@SEAMS
@given(net=networks(3), size=st.lists(st.integers(7, 20), min_size=3, max_size=3), data=st.data())
def test_random_graphs_3d_have_no_seams(net: nn.Module, size: list[int], data: st.DataObject) -> None:
    tile = data.draw(st.lists(st.integers(4, 16), min_size=3, max_size=3))
    _check_graph(net, size, tile, data.draw(st.integers(0, 9)))
