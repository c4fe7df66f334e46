"""attention: what the common harness does not cover."""

import pytest
import torch
from cases import attention as cases
from harness import PLACEMENTS, check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops import attention


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    batch = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    queries, keys = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 600))
    depth, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    terms = []
    for _ in range(data.draw(st.integers(0, 2))):
        repeated = [size if data.draw(st.booleans()) else 1 for size in (*batch, queries)]
        terms.append((*repeated[data.draw(st.integers(0, len(repeated) - 1)) :], keys))
    case = cases.Case(batch, queries, keys, depth, width, tuple(terms))
    if len(terms) > 1 and keys < 20:  # a query may have no key left
        case = cases.Case(batch, queries, keys, depth, width, tuple(terms[:1]))
    dtype = data.draw(st.sampled_from(cases.DTYPES))
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS)), dtype) is None


def test_same_values_as_torch() -> None:
    q, k, v = torch.randn(3, 2, 4, 50, 24).unbind()
    mask = torch.rand(50, 50) > 0.5
    added = torch.zeros(50, 50).masked_fill(~mask, -torch.inf)
    expected = functional.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask=added), expected, rtol=1e-5, atol=1e-5)
    expected = functional.scaled_dot_product_attention(q, k, v, scale=0.1)
    torch.testing.assert_close(attention(q, k, v, scale=0.1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keys", [20, 600])
def test_scores_of_any_size(keys: int) -> None:
    q, k, v = torch.randn(1, 2, 30, 16) * 100, torch.randn(1, 2, keys, 16), torch.randn(1, 2, keys, 16)
    mask = torch.zeros(30, keys)
    mask[:, : keys // 2] = -torch.inf  # whole blocks of keys
    mask[3] = -torch.inf  # no key is left: 0, as torch has it
    expected = functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask.double())
    actual = attention(q, k, v, mask=mask, implementation="native")
    assert not actual[:, :, 3].any()
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-4)


def test_a_value_that_is_not_finite_stays_in_its_row() -> None:
    q, k, v = torch.randn(3, 1, 2, 40, 16).unbind()
    expected = attention(q, k, v, implementation="native")
    for value in (torch.nan, torch.inf):
        spoiled = q.clone()
        spoiled[0, 1, 7, 3] = value
        actual = attention(spoiled, k, v, implementation="native")
        assert actual[0, 1, 7].isnan().all()
        actual[0, 1, 7] = expected[0, 1, 7]
        assert torch.equal(actual, expected)


def test_gradient() -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64).unbind()
    bias = torch.randn(2, 5, 5, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (q, k, v, bias)]
    assert torch.autograd.gradcheck(lambda q, k, v, bias: attention(q, k, v, bias=bias), inputs)


def test_wrong_arguments_are_named() -> None:
    q = torch.zeros(2, 3, 8, 16)
    for call, message in (
        (lambda: attention(q[0, 0, 0], q, q), r"q is .* of shape \(16,\): pass"),
        (lambda: attention(q, q[..., :5], q), r"k is .* of shape \(2, 3, 8, 5\): pass"),
        (lambda: attention(q, q, q[:, :, :5]), r"v is .*: pass .* of shape \(2, 3, 8, 16\)"),
        (lambda: attention(q, q[:, :, :0], q[:, :, :0]), "k has no keys"),
        (lambda: attention(q, q, q, bias=torch.zeros(7, 8)), r"bias is .* of shape \(7, 8\): pass"),
        (lambda: attention(q, q, q, mask=torch.ones(8, 8, dtype=torch.bool)), "mask is torch.bool"),
        (lambda: attention(q, q, q, scale=torch.ones(2)), r"scale has shape \(2,\): pass one number, or \(3,\)"),
        (lambda: attention(q.double(), q.double(), q.double(), implementation="native"), "cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4).unbind()
    operator = torch.ops.fastnets.attention.default
    torch.library.opcheck(operator, (q, k, v, torch.ones(2), torch.randn(2, 5, 5), None, None))
