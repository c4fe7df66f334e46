"""pad: what the common harness does not cover."""

import pytest
import torch
from torch.nn import functional

from fastnets.errors import InputError
from fastnets.ops.pad import MODES, pad


@pytest.mark.parametrize("mode", MODES)
def test_gradient(mode: str) -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pad(x, (1, 2, 3, 0), mode=mode), x)


def test_order_of_axes() -> None:
    x = torch.randn(1, 2, 5, 4)
    assert torch.equal(pad(x, (1, 2, 3, 0), mode="reflect"), functional.pad(x, (3, 0, 1, 2), mode="reflect"))


@pytest.mark.parametrize(
    ("padding", "mode", "message"),
    [
        ((1, 2), "reflect", "padding is .*or 4"),
        (-1, "reflect", "0 or more"),
        (1, "constant", "mode is 'constant'.*reflect"),
        (4, "reflect", r"\(4, 4\) of an axis of 4 pixels.*at most 3"),
        (5, "circular", "at most 4"),
    ],
)
def test_wrong_arguments_say_what_to_do(padding: object, mode: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pad(torch.zeros(1, 2, 4, 9), padding, mode=mode)  # type: ignore[arg-type]
