"""roi_align: what the common harness does not cover."""

import pytest
import torch
from cases import roi_align as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.roi_align import roi_align


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    spatial = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
    case = cases.Case(
        shape=(data.draw(st.integers(1, 2)), data.draw(st.integers(1, 70)), *spatial),
        boxes=data.draw(st.integers(0, 4)),
        size=(data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))),
        scale=data.draw(st.sampled_from([1.0, 0.5, 0.0625])),
        samples=data.draw(st.integers(0, 3)),
        aligned=data.draw(st.booleans()),
    )
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_by_hand() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    whole = torch.tensor([[0.0, 0, 0, 4, 4]])
    aligned = roi_align(x, whole, 4, aligned=True, implementation="native")
    assert torch.equal(aligned, x)
    assert roi_align(x, whole, 2, samples=1, aligned=True, implementation="native").flatten().tolist() == [
        2.5, 4.5, 10.5, 12.5,
    ]  # fmt: skip
    empty = torch.tensor([[0.0, 9, 9, 9, 9]])
    assert roi_align(x, empty, 2, implementation="native").abs().sum() == 0
    flipped = torch.tensor([[0.0, 3, 3, 1, 1]])  # no samples at all
    assert roi_align(x, flipped, 2, aligned=True, implementation="native").abs().sum() == 0


def test_gradient() -> None:
    call = cases.make(cases.Case((1, 2, 5, 4), 3, (2, 2), 0.5))
    x, boxes = call.x.double().requires_grad_(), call.boxes.double()
    assert torch.autograd.gradcheck(lambda v: roi_align(v, boxes, 2, scale=0.5), x)
    fast = call.x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(roi_align(x, boxes, 2, scale=0.5).sin().sum(), x)
    (actual,) = torch.autograd.grad(roi_align(fast, call.boxes, 2, scale=0.5).sin().sum(), fast)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x, boxes = torch.zeros(1, 2, 8, 8), torch.zeros(3, 5)
    for call, message in (
        (
            lambda: roi_align(x, boxes[:, :4], 2),
            r"boxes is torch.float32 of shape \(3, 4\): pass torch.float32 \(K, 5\)",
        ),
        (lambda: roi_align(x[0], boxes, 2), r"pass \(N, C, y, x\)"),
        (lambda: roi_align(x, boxes, 0), "size is 0"),
        (lambda: roi_align(x.double(), boxes.double(), 2, implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    for boxes_, message in (
        (boxes + 1, r"boxes\[0\] names image 1"),
        (boxes + torch.tensor([0, 0, 0, 0, 1e9]), "million"),
    ):
        with pytest.raises(ValueError, match=message):
            roi_align(x, boxes_, 2)


def test_torch_sees_an_operator() -> None:
    call = cases.make(cases.Case((1, 2, 5, 4), 3, (2, 2)))
    operator = torch.ops.fastnets.roi_align.default
    # The gradient reads the values of the boxes: it runs, but cannot be traced.
    utils = "test_schema", "test_autograd_registration", "test_faketensor"
    arguments = (call.x.requires_grad_(), call.boxes, [2, 2], 1.0, 2, True, None)
    torch.library.opcheck(operator, arguments, test_utils=utils)
