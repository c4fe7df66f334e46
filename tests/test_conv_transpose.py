"""conv_transpose: what the common harness does not cover."""

from dataclasses import replace

import pytest
import torch
from cases import conv_transpose as cases
from harness import PLACEMENTS, check, place, relative_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops import conv_transpose_winograd as winograd
from fastnets.ops.conv_config import ConvConfig
from fastnets.ops.conv_cost import product_rows
from fastnets.ops.conv_transpose import ConvTransposeCall, PackedConvTranspose, conv_transpose
from fastnets.ops.epilogue import activation_of


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    spatial = data.draw(st.lists(st.integers(1, 7), min_size=axes, max_size=axes))
    stride, dilation = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    case = cases.Case(
        shape=(data.draw(st.integers(0, 2)), data.draw(st.integers(1, 20)) * groups, *spatial),
        cout=data.draw(st.integers(1, 40)) * groups,
        kernel=data.draw(st.integers(1, 4)),
        stride=stride,
        padding=data.draw(st.integers(0, 3)),
        extra=data.draw(st.integers(0, max(stride, dilation) - 1)),
        dilation=dilation,
        groups=groups,
        activation=data.draw(st.sampled_from(["none", "relu", "tanh"])),
    )
    assume(min(cases.make(case).shape[2:]) >= 1)
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_packed_weights_into_a_slice() -> None:
    x, weight, bias = torch.randn(2, 20, 6, 5), torch.randn(20, 13, 2, 2), torch.randn(13)
    packed = PackedConvTranspose(weight.clone(), bias, stride=2, activation="relu")
    expected = functional.conv_transpose2d(x.double(), weight.double(), bias.double(), stride=2).relu()
    out = place(torch.zeros(2, 13, 12, 10), "slices")
    residual = torch.randn(2, 13, 12, 10)
    assert packed(x, out=out) is out
    assert relative_error(out, expected) < 1e-6
    before = functional.conv_transpose2d(x.double(), weight.double(), bias.double(), stride=2)
    assert relative_error(packed(x, residual=residual), (before + residual).relu()) < 1e-6


@pytest.mark.parametrize("cout", [21, 64])  # weights as points of the tiles, and as taps
@pytest.mark.parametrize("axes", [2, 3])
def test_every_winograd_tile(axes: int, cout: int) -> None:
    """With terms of channels and of borders, in items of few tiles and of many, streamed, into a slice of NaN."""
    random = torch.Generator().manual_seed(0)
    function = functional.conv_transpose2d if axes == 2 else functional.conv_transpose3d
    for size in ((9, 22, 5)[:axes], (1, 2, 7)[:axes]):
        x, scale, bias = (torch.randn(n, generator=random) for n in ((2, 19, *size), (cout,), (cout,)))
        weight = torch.randn(19, cout, *(4,) * axes, generator=random)
        border = torch.randn(cout, *(3,) * axes, generator=random)
        border[(..., *(1,) * axes)] = 0
        residual = torch.randn(2, cout, *(2 * n for n in size), generator=random)
        over = (slice(None), *(None,) * axes)
        expected = function(x.double(), weight.double(), stride=2, padding=1) * scale[over] + bias[over] + residual
        sides = [torch.tensor([0] + [1] * (2 * n - 2) + [2]) for n in size]
        expected = (expected + border[(slice(None), *torch.meshgrid(*sides, indexing="ij"))]).relu()
        call = ConvTransposeCall(
            *(x, weight, bias, residual, (2,) * axes, (1,) * axes, (0,) * axes, (1,) * axes),
            activation=activation_of("conv_transpose", "relu"),
            scale=scale,
        )
        assert winograd.refusal(call) is None
        for tile in winograd.TILES[axes]:
            for block, stream, taps in ((1, False, False), (5, True, cout == 64), (64, False, cout == 64)):
                config = ConvConfig("winograd", tile, block, stream=stream, taps=taps and product_rows() > 6)
                out = place(torch.zeros_like(residual), "slices").fill_(float("nan"))
                winograd.run(replace(call, out=out), winograd.pack(weight, config), config, border)
                assert relative_error(out, expected) <= 1e-5, config
                assert int((~out._base.isnan()).sum()) == out.numel()


def test_packed_weights_are_chosen_by_size() -> None:
    weight, packs = torch.randn(64, 64, 4, 4), {}
    packed = PackedConvTranspose(weight, stride=2, padding=1, packs=packs)
    for size, algorithm in ((64, "winograd"), (1, None)):
        x = torch.randn(1, 64, size, size)
        expected = functional.conv_transpose2d(x.double(), weight.double(), stride=2, padding=1)
        assert relative_error(packed(x), expected) <= 1e-5
        assert (packed.config.algorithm if packed.config else None) == algorithm
    assert len(packs) == 2


def test_gradient() -> None:
    x = torch.randn(1, 4, 3, 2, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64).requires_grad_()
    bias = torch.randn(6, dtype=torch.float64).requires_grad_()
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "activation": "silu"}
    assert torch.autograd.gradcheck(lambda *v: conv_transpose(*v, **options), (x, weight, bias))
    gradients = []
    for values in ([x, weight, bias], [v.detach().float().requires_grad_() for v in (x, weight, bias)]):
        gradients.append(torch.autograd.grad(conv_transpose(*values, **options).sin().sum(), values))
    for actual, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x, weight = torch.zeros(2, 4, 8, 8), torch.zeros(4, 3, 2, 2)
    for call, message in (
        (lambda: conv_transpose(x, weight[:3]), r"weight has shape \(3, 3, 2, 2\) with groups 1: pass \(4, Cout"),
        (lambda: conv_transpose(x, weight, groups=3), "groups that divide 4"),
        (lambda: conv_transpose(x, weight, torch.zeros(4)), r"bias has shape \(4,\): pass \(3,\)"),
        (lambda: conv_transpose(x, weight, output_padding=1), "output_padding is"),
        (lambda: conv_transpose(x, weight, padding=9), "pass a larger x or less padding"),
        (lambda: conv_transpose(x, weight, residual=x), "residual has shape"),
        (lambda: PackedConvTranspose(weight)(x, out=x), "out has shape"),
        (lambda: PackedConvTranspose(weight, border=torch.zeros(3)), r"border has shape \(3,\): pass Cout and 3 for"),
        (lambda: PackedConvTranspose(weight, border=torch.zeros(3, 3, 3))(x), "border needs winograd.*kernel is"),
        (lambda: conv_transpose(x, weight, implementation="winograd"), r"cannot run: kernel is \(2, 2\), stride"),
        (lambda: PackedConvTranspose(weight.double()), "cannot be packed: .*float64"),
        (lambda: conv_transpose(x.double(), weight.double(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    x, weight = torch.randn(1, 4, 5, 3).to(memory_format=torch.channels_last), torch.randn(4, 3, 2, 2)
    rest = None, None, [2, 2], [0, 0], [0, 0], [1, 1], 1, "none", [], None
    operator = torch.ops.fastnets.conv_transpose.default
    torch.library.opcheck(operator, (x, weight, *rest))
    torch.library.opcheck(operator, (x.requires_grad_(), weight.requires_grad_(), *rest))
