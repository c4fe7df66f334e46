"""inverted_bottleneck: any shape, gradients, packed weights, and wrong arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import inverted_bottleneck as cases
from harness import check, in_float64, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.inverted_bottleneck import OP, PackedInvertedBottleneck, inverted_bottleneck


@st.composite
def any_case(draw: st.DrawFn) -> cases.Case:
    def two(low: int, high: int) -> tuple[int, int]:
        return (draw(st.integers(low, high)), draw(st.integers(low, high)))

    kernel, size = two(1, 5), two(1, 40)
    padding = []
    for k, n in zip(kernel, size, strict=True):
        before, after = two(0, 5)
        padding.append((before, max(after, k - n - before)))
    activations = st.sampled_from(("none", "relu", "relu6", "silu"))
    return cases.Case(
        batch=draw(st.integers(0, 2)),
        cin=draw(st.integers(1, 40)),
        middle=draw(st.integers(1, 100)),
        cout=draw(st.integers(1, 70)),
        size=size,
        kernel=kernel,
        stride=draw(st.sampled_from((1, 2, (1, 2), (3, 1)))),
        padding=tuple(padding),
        biases=draw(st.booleans()),
        residual=draw(st.booleans()),
        activations=(draw(activations), draw(activations), draw(activations)),
    )


@settings(max_examples=100, deadline=None)
@given(case=any_case(), placement=st.sampled_from(("dense", "misaligned", "slices")))
def test_any_shape(case: cases.Case, placement: str) -> None:
    assert check(cases, case, "fused", placement) is None


TENSORS = ("x", "expand", "depthwise", "project", "bias", "expand_bias", "middle_bias", "residual")


def options(case: cases.Case) -> dict[str, object]:
    names = ("expand_activation", "middle_activation", "activation")
    return {"stride": case.stride, "padding": case.padding, **dict(zip(names, case.activations, strict=True))}


@pytest.mark.parametrize(
    "case",
    [
        cases.Case(2, 5, 20, 7, (9, 11), residual=True, activations=("silu", "relu6", "tanh")),
        cases.Case(1, 6, 18, 20, (9, 11), stride=2, biases=False),
    ],
    ids=lambda case: case.name,
)
def test_gradients(case: cases.Case) -> None:
    results = []
    for call, implementation in ((cases.make(case), "fused"), (in_float64(cases.make(case)), "torch")):
        tensors = {name: getattr(call, name) for name in TENSORS}
        leaves = {name: t.requires_grad_() for name, t in tensors.items() if t is not None}
        y = inverted_bottleneck(**leaves, **options(case), implementation=implementation)
        grad = torch.cos(torch.arange(y.numel())).view(y.shape).to(y.dtype)
        results.append([y.detach(), *torch.autograd.grad(y, list(leaves.values()), grad)])
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) <= 1e-5


def test_packed_weights_run_on_many_inputs() -> None:
    case = cases.Case(1, 12, 72, 20, (9, 10), residual=True)
    call = cases.make(case)
    packed = PackedInvertedBottleneck(
        call.expand.flatten(1),
        call.depthwise,
        call.project.flatten(1),
        call.bias,
        expand_bias=call.expand_bias,
        middle_bias=call.middle_bias,
        **options(case),
    )
    assert packed.bytes >= 4 * (12 * 72 + 72 * 9 + 72 * 20)
    for size in ((9, 10), (3, 4), (20, 31)):
        x, residual = torch.randn(2, 12, *size), torch.randn(2, 20, *size)
        wide = torch.full((2, *size, 30), float("nan")).movedim(-1, 1)
        result = packed(x, residual=residual, out=wide[:, 5:25])
        expected = OP.reference(in_float64(replace(call, x=x, residual=residual)))
        assert relative_error(result, expected) <= 1e-5
        assert wide[:, :5].isnan().all()
        assert wide[:, 25:].isnan().all()


def test_the_residual_may_lie_where_the_result_goes() -> None:
    """A plan adds to its input in place: a tile must not read what another has written."""
    case = cases.Case(2, 16, 96, 16, (57, 300), residual=True)
    call = cases.make(case)
    expected = OP.reference(in_float64(call))
    residual = call.residual
    assert residual is not None
    shared = residual.contiguous(memory_format=torch.channels_last)
    fused = next(candidate for candidate in OP.implementations if candidate.name == "fused")
    assert relative_error(fused.run(replace(call, residual=shared, out=shared)), expected) <= 1e-5


def test_wrong_arguments() -> None:
    x, expand, depthwise, project = (torch.zeros(s) for s in ((1, 4, 5, 5), (6, 4), (6, 1, 3, 3), (2, 6)))
    weights = (expand, depthwise, project)
    for arguments, given_options, message in (
        ((x, expand, depthwise[:, 0], project), {}, r"depthwise has shape \(6, 3, 3\): pass \(M, 1, \*kernel\)"),
        ((x, expand[:5], depthwise, project), {}, r"expand has shape \(5, 4\) .*: pass \(6, Cin, 1, 1\)"),
        ((x, expand, depthwise, project[:, :5]), {}, r"project has shape \(2, 5\) .*: pass \(Cout, 6, 1, 1\)"),
        ((x[:, :3], *weights), {}, r"x has shape \(1, 3, 5, 5\): pass \(N, 4, height, width\)"),
        ((x[0], *weights), {}, r"x has shape \(4, 5, 5\)"),
        ((x, *weights, torch.zeros(6)), {}, r"bias has shape \(6,\): pass \(2,\)"),
        ((x, *weights), {"middle_bias": torch.zeros(2)}, r"middle_bias has shape \(2,\): pass \(6,\)"),
        ((x, *weights), {"residual": x}, r"residual is \(1, 4, 5, 5\).*: pass \(1, 2, 3, 3\)"),
        ((x[:, :, :2], *weights), {}, "larger than the padded input"),
        ((x.double(), *weights), {}, "pass one floating-point dtype"),
    ):
        with pytest.raises(InputError, match=message):
            inverted_bottleneck(*arguments, **given_options)
    with pytest.raises(InputError, match=r"cannot run: .*needs torch\.float32"):
        inverted_bottleneck(x.double(), *(w.double() for w in weights), implementation="fused")


def test_torch_sees_an_operator() -> None:
    sizes = ((1, 5, 6, 7), (8, 5), (8, 1, 3, 3), (4, 8))
    tensors = (*(torch.randn(size) for size in sizes), None, None, None, None)
    rest = ([1, 1], [1, 1, 1, 1], "relu", [], "relu6", [], "none", [], "fused")
    torch.library.opcheck(torch.ops.fastnets.inverted_bottleneck.default, (*tensors, *rest))
    leaves = [None if t is None else t.requires_grad_() for t in tensors]
    torch.library.opcheck(torch.ops.fastnets.inverted_bottleneck.default, (*leaves, *rest))
