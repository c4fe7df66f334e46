"""window_gather: every dtype and layout against slices."""

import pytest
import torch
from cases.window_accumulate import CASES, Case, make, to_channels_last
from harness import thread_count
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets import _C
from fastnets.ops.window_gather import _native_refusal, reference, window_gather


def poisoned(windows: torch.Tensor) -> torch.Tensor:
    """Windows of NaN in the layout of these, the first of a larger tensor."""
    return torch.full_like(torch.cat([windows, windows[:1]]), float("nan"))


@pytest.mark.parametrize("case", [case for case in CASES if case.count], ids=lambda case: case.name)
def test_equals_slices(case: Case) -> None:
    arguments = make(case)
    frame = poisoned(arguments.windows)
    if case.channels_last:
        frame = to_channels_last(frame)
    windows = frame[:-1]
    assert _native_refusal(windows, arguments.out) is None
    assert window_gather(windows, arguments.out, arguments.starts) is windows
    expected = reference(torch.empty_like(windows), arguments.out, arguments.starts)
    assert torch.equal(windows, expected)
    assert frame[-1].isnan().all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    window = tuple(data.draw(st.integers(1, 20)) for _ in range(axes))
    image = tuple(size + data.draw(st.integers(0, 20)) for size in window)
    case = Case(data.draw(st.integers(1, 2)), data.draw(st.integers(1, 9)), image, window, data.draw(st.integers(1, 5)))
    arguments = make(case)
    source = to_channels_last(arguments.out) if data.draw(st.booleans()) else arguments.out.contiguous()
    expected = reference(torch.empty_like(arguments.windows), source, arguments.starts)
    for threads in (1, 2):
        with thread_count(threads):
            windows = torch.empty_like(arguments.windows)
            assert torch.equal(window_gather(windows, source, arguments.starts), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8])
def test_dtypes(dtype: torch.dtype) -> None:
    arguments = make(Case(1, 3, (200, 90), (100, 70), 7))  # enough bytes to run in parallel
    image = (arguments.out * 50).to(dtype)
    windows = torch.empty_like(arguments.windows, dtype=dtype)
    window_gather(windows, image, arguments.starts)
    assert torch.equal(windows, reference(torch.empty_like(windows), image, arguments.starts))


def test_what_the_native_code_refuses_runs_in_torch() -> None:
    arguments = make(Case(1, 3, (20, 19), (8, 7), 4))
    image = arguments.out.contiguous()
    expected = reference(torch.empty_like(arguments.windows), image, arguments.starts)
    for other in (
        to_channels_last(image),
        image.double(),
        image.clone().requires_grad_(),
        image.mT.contiguous().mT,
        image.repeat_interleave(2, -1)[..., ::2],
    ):
        assert _native_refusal(arguments.windows, other) is not None
        windows = window_gather(torch.empty_like(arguments.windows), other, arguments.starts)
        assert torch.equal(windows, expected)


def test_the_binding_checks_by_itself() -> None:
    arguments = make(Case(1, 2, (8, 9), (4, 5), 2))
    good = {
        "windows": arguments.windows.numpy(),
        "image": arguments.out.contiguous().numpy(),
        "starts": arguments.starts.numpy(),
        "nthreads": 1,
    }
    _C.window_gather(**good)
    for name, wrong, message in (
        ("windows", good["windows"].astype("float64"), "differ in dtype"),
        ("windows", good["windows"][:, :1], "windows have 1 channels and the image has 2"),
        ("windows", arguments.windows[:1].expand(2, -1, -1, -1).numpy(), "windows repeats its elements"),
        ("image", good["image"].swapaxes(2, 3)[:, :, :8], "contiguous x rows|fit into the image"),
        ("image", good["image"][..., :4], "is .* and windows fit into the image from 0 to -1"),
        ("starts", good["starts"][:1], "starts has shape"),
        ("starts", good["starts"] + 5, r"starts\[0\]\[0\] is"),
        ("nthreads", 0, "nthreads is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.window_gather(**{**good, name: wrong})
    with pytest.raises(ValueError, match="differ in dtype or in the number of axes"):
        _C.window_gather(**{**good, "image": good["image"][0]})
