"""matmul: what the common harness does not cover."""

import pytest
import torch
from cases import matmul as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops import matmul


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    batch = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    rows, columns = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 300))
    case = cases.Case(batch, rows, data.draw(st.integers(1, 600)), columns, data.draw(st.booleans()))
    dtype = data.draw(st.sampled_from(cases.DTYPES))
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS)), dtype) is None


def test_every_order_of_axes() -> None:
    a, b = torch.randn(2, 5, 20, 9), torch.randn(2, 5, 9, 33)
    expected = a @ b
    for x in (a, a.mT.contiguous().mT, a.movedim(1, -1).contiguous().movedim(-1, 1)):
        for y in (b, b.mT.contiguous().mT, b.movedim(1, -1).contiguous().movedim(-1, 1)):
            torch.testing.assert_close(matmul(x, y, implementation="native"), expected, rtol=1e-5, atol=1e-5)


def test_batches_broadcast() -> None:
    for a, b in (((4, 1, 6, 5), (3, 5, 7)), ((6, 5), (2, 5, 7)), ((6, 5), (5, 7)), ((1, 6, 5), (4, 5, 7))):
        x, y = torch.randn(a), torch.randn(b)
        torch.testing.assert_close(matmul(x, y, implementation="native"), x @ y, rtol=1e-5, atol=1e-5)


def test_gradient() -> None:
    a, b = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(matmul, (a.requires_grad_(), b.requires_grad_()))


def test_wrong_arguments_are_named() -> None:
    a = torch.zeros(2, 3, 4)
    for call, message in (
        (lambda: matmul(a, a), r"b has shape \(2, 3, 4\): pass \(\*batch, 4, columns\)"),
        (lambda: matmul(a, torch.zeros(3, 4, 5)), r"b has shape \(3, 4, 5\)"),
        (lambda: matmul(a[0, 0], a), r"a is .* of shape \(4,\): pass matrices"),
        (lambda: matmul(a, a.mT.double()), "b is torch.float64"),
        (lambda: matmul(a[..., :0], a[:, :0]), "a has no columns"),
        (lambda: matmul(a.double(), a.mT.double(), implementation="native"), "cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    operator = torch.ops.fastnets.matmul.default
    torch.library.opcheck(operator, (torch.randn(2, 3, 4), torch.randn(2, 4, 5), None))
