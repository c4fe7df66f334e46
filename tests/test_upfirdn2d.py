"""upfirdn2d: what the common harness does not cover."""

import pytest
import torch
from cases import upfirdn2d as cases
from harness import PLACEMENTS, check
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.upfirdn2d import OP, upfirdn2d


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.integers(low, high)), data.draw(st.integers(low, high))

    case = cases.Case(
        shape=(data.draw(st.integers(0, 2)), data.draw(st.integers(1, 70)), *pair(1, 12)),
        taps=data.draw(st.sampled_from([pair(1, 6), pair(1, 6)[:1]])),
        up=pair(1, 4),
        down=pair(1, 4),
        padding=(*pair(-3, 8), *pair(-3, 8)),
        flip=data.draw(st.booleans()),
        gain=data.draw(st.sampled_from([1.0, 4.0])),
    )
    assume(min(cases.make(case).shape[2:]) >= 1)
    assert check(cases, case, "native", data.draw(st.sampled_from(PLACEMENTS))) is None


def test_by_the_definition() -> None:
    """Sums over the pixels that the padded and upsampled image has, one by one."""
    call = cases.make(cases.Case((1, 1, 4, 5), (3, 2), up=(2, 3), down=(3, 2), padding=(2, -1, -2, 3), gain=2))
    x, kernel, (top, _, left, _) = call.x[0, 0].double(), call.kernel.double(), call.padding
    y = upfirdn2d(call.x, call.kernel, up=(2, 3), down=(3, 2), padding=((2, -1), (-2, 3)), gain=2)
    assert y.shape == (1, 1, 3, 8)
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            total = 0.0
            for i in range(3):
                for j in range(2):
                    v, u = row * 3 + i - top, column * 2 + j - left
                    if 0 <= v < 8 and 0 <= u < 15 and v % 2 == 0 and u % 3 == 0:
                        total += float(x[v // 2, u // 3] * kernel[2 - i, 1 - j])
            assert abs(float(y[0, 0, row, column]) - 2 * total) < 1e-5


def test_a_vector_is_the_filter_along_both_axes() -> None:
    x, f = torch.randn(1, 7, 9, 10), torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    options = {"up": 2, "padding": ((2, 1), (2, 1)), "gain": 4.0}
    torch.testing.assert_close(upfirdn2d(x, f, **options), upfirdn2d(x, f[:, None] * f, **options))


@pytest.mark.parametrize(
    "case",
    [
        cases.Case((1, 2, 4, 5), (4,), up=(2, 2), padding=(2, 1, 2, 1), gain=4),
        cases.Case((1, 2, 7, 6), (4,), down=(2, 2), padding=(1, 1, 1, 1)),
        cases.Case((1, 2, 5, 6), (3, 2), up=(2, 3), down=(3, 2), padding=(2, -1, -2, 3), flip=True, gain=2),
    ],
    ids=lambda case: case.name,
)
def test_gradient(case: cases.Case) -> None:
    call = cases.make(case)
    padding = (call.padding[:2], call.padding[2:])

    def run(x: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(
            x, call.kernel.to(x), up=call.up, down=call.down, padding=padding, flip=call.flip, gain=call.gain
        )

    x = call.x.double().requires_grad_()
    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)
    fast = call.x.clone().requires_grad_()
    (expected,), (actual,) = (torch.autograd.grad(run(v).sin().sum(), v) for v in (x, fast))
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    x, kernel = torch.zeros(1, 2, 8, 8), torch.ones(4)
    for call, message in (
        (lambda: upfirdn2d(x[0], kernel), r"pass floating point \(N, C, H, W\)"),
        (lambda: upfirdn2d(x, kernel.double()), r"kernel is torch.float64 of shape \(4,\): pass torch.float32"),
        (lambda: upfirdn2d(x, kernel, up=0), "up is 0: pass one number, or 2, each 1 or more"),
        (lambda: upfirdn2d(x, kernel, padding=((1, 2),)), "padding is .*: pass one number, or .before, after."),
        (lambda: upfirdn2d(x, kernel, padding=-4), "pass a larger x or more padding"),
        (lambda: upfirdn2d(x, kernel.requires_grad_()), r"pass kernel.detach\(\)"),
        (lambda: upfirdn2d(x.double(), kernel.double().detach(), implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    call = cases.make(cases.CASES[3])
    arguments = (call.kernel, [2, 2], [2, 2], [11, 10, 10, 11], False, 4.0, None)
    torch.library.opcheck(torch.ops.fastnets.upfirdn2d.default, (call.x, *arguments))
    torch.library.opcheck(torch.ops.fastnets.upfirdn2d.default, (call.x.requires_grad_(), *arguments))
    assert OP.choose(call).name == "native"
