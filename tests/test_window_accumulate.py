"""window_accumulate: every implementation and ISA level against float64."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from cases.window_accumulate import CASES, Arguments, Case, inside, make, to_channels_last
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.window_accumulate import IMPLEMENTATIONS, reference, window_accumulate

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2, torch.float16: 4e-3}
NAMES = [i.name for i in IMPLEMENTATIONS if i.name != "triton"]  # see tests/kernel_values_others.py
PARALLEL = Case(2, 3, (96, 96), (64, 64), 8)
SMALL = Case(1, 2, (8, 9), (4, 5), 2)


@pytest.fixture
def _restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(arguments: Arguments, implementation: str | None = None) -> torch.Tensor:
    a = arguments
    return window_accumulate(a.out, a.windows, a.starts, a.weights, floor=a.floor, implementation=implementation)


def check(arguments: Arguments, implementation: str | None = None) -> None:
    a = arguments
    expected = reference(a.out, a.windows, a.starts, a.weights, floor=a.floor)
    assert run(a, implementation) is a.out
    error = (a.out.double() - expected).norm() / expected.norm().clamp(min=1e-30)
    assert error <= TOLERANCE[a.out.dtype]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("implementation", NAMES)
def test_equals_the_reference(implementation: str, case: Case) -> None:
    check(make(case), implementation)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_leaves_the_surroundings_alone(case: Case) -> None:
    arguments = make(case)
    base = arguments.out._base
    assert base is not None
    frame = base if base.dim() == arguments.out.dim() and base.shape[1] == case.channels else base.movedim(-1, 1)
    run(arguments, "native")
    assert arguments.out.isfinite().all()
    inside(frame).fill_(float("nan"))
    assert frame.isnan().all()


def test_does_not_round_the_least_weight() -> None:
    out = torch.zeros(1, 1, 2, 2)
    vectors = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5])]
    window_accumulate(out, torch.ones(1, 1, 2, 2), torch.tensor([[0, 0, 0]]), vectors, floor=0.25)
    assert out.tolist() == [[[[1.0, 0.5], [0.25, 0.25]]]]


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("channels_last", [False, True])
def test_threads_do_not_change_the_result(channels_last: bool) -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(make(replace(PARALLEL, channels_last=channels_last)), "native"))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("out_last", [False, True])
def test_any_layout_of_windows(out_last: bool) -> None:
    arguments = make(replace(PARALLEL, channels_last=out_last))
    spread = arguments.windows.new_full((*arguments.windows.shape, 2), float("nan"))
    spread[..., 0] = arguments.windows
    for windows in (
        arguments.windows.contiguous(),
        to_channels_last(arguments.windows),
        arguments.windows.transpose(2, 3).contiguous().transpose(2, 3),
        spread[..., 0],
        arguments.windows[:, :1].expand_as(arguments.windows),
    ):
        check(replace(arguments, windows=windows), "native")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtypes(dtype: torch.dtype) -> None:
    arguments = make(PARALLEL)
    check(replace(arguments, out=arguments.out.to(dtype), windows=arguments.windows.to(dtype)))
    check(replace(make(PARALLEL), windows=arguments.windows.to(dtype)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    size = tuple(data.draw(st.lists(st.integers(1, 40), min_size=axes, max_size=axes)))
    window = tuple(data.draw(st.integers(1, s)) for s in size)
    case = Case(
        images=data.draw(st.integers(1, 3)),
        channels=data.draw(st.integers(1, 20)),
        size=size,
        window=window,
        count=data.draw(st.integers(0, 5)),
        channels_last=data.draw(st.booleans()),
        dense=data.draw(st.booleans()),
    )
    check(make(case, seed=data.draw(st.integers(0, 99))), "native")


def test_gradients_reach_the_windows() -> None:
    arguments = make(SMALL)
    windows = arguments.windows.double().requires_grad_()
    vectors = [w.double() for w in arguments.weights]

    def total(windows: torch.Tensor) -> torch.Tensor:
        return window_accumulate(arguments.out.double().clone(), windows, arguments.starts, vectors)

    assert torch.autograd.gradcheck(total, windows)


def test_native_refuses_with_a_reason() -> None:
    arguments = make(SMALL)
    with pytest.raises(InputError, match=r"needs torch\.float32"):
        run(replace(arguments, out=arguments.out.double()), "native")
    with pytest.raises(InputError, match="gradients"):
        run(replace(arguments, windows=arguments.windows.clone().requires_grad_()), "native")
    with pytest.raises(InputError, match="contiguous x rows"):
        run(replace(arguments, out=arguments.out.repeat(1, 1, 1, 2)[..., ::2]), "native")
    with pytest.raises(InputError, match="pass None or one of 'native', 'triton', 'torch'"):
        run(arguments, "cuda")


def test_wrong_arguments_are_named() -> None:
    a = make(SMALL)
    for wrong, message in (
        (replace(a, windows=a.windows[:, :1]), "windows .* do not fit out"),
        (replace(a, out=a.out.long()), "floating-point"),
        (replace(a, starts=a.starts.int()), "pass int64"),
        (replace(a, starts=a.starts[:1]), r"pass \(2, 3\)"),
        (replace(a, weights=list(a.weights)[:1]), r"weights are of size \(4,\): pass \(4, 5\)"),
    ):
        with pytest.raises(InputError, match=message):
            run(wrong)


@pytest.mark.parametrize(
    ("implementation", "message"),
    [("native", r"starts\[0\]\[0\] is .* from 0 to 0"), ("torch", r"from \[0, 0, 0\] to \[0, 4, 4\]")],
)
@pytest.mark.parametrize("shift", [-100, 100])
def test_windows_outside_are_refused(implementation: str, message: str, shift: int) -> None:
    arguments = make(SMALL)
    with pytest.raises(ValueError, match=message):
        run(replace(arguments, starts=arguments.starts + shift), implementation)


def test_the_binding_checks_by_itself() -> None:
    good = {
        "out": torch.zeros(1, 2, 8, 9).numpy(),
        "windows": torch.zeros(2, 2, 4, 5).numpy(),
        "starts": torch.zeros(2, 3, dtype=torch.int64).numpy(),
        "weights": [torch.ones(4).numpy(), torch.ones(5).numpy()],
        "floor": 0.0,
        "nthreads": 1,
    }
    _C.window_accumulate(**good)
    _C.window_accumulate(**{**good, "weights": [torch.ones(10, 4).numpy()[::2].T]})
    out = good["out"]
    for name, wrong, message in (
        ("out", out.astype("float64"), "out has dtype float64: pass float32"),
        ("out", out[0, 0], "pass \\(N, C, \\*spatial\\)|pass 2 dimensions"),
        ("out", torch.zeros(1, 2, 8, 18).numpy()[..., ::2], "contiguous x rows"),
        ("out", torch.zeros(1, 2, 1, 9).expand(1, 2, 8, 9).numpy(), "out repeats its elements"),
        ("out", torch.zeros(1, 3, 8, 9).numpy(), "windows have 2 channels and the image has 3"),
        ("windows", good["windows"].astype("int32"), "windows has dtype int32: pass float32"),
        ("windows", good["windows"][0], "windows has shape .*: pass 4 dimensions"),
        ("starts", good["starts"] + 9, r"starts\[0\]\[0\] is 9"),
        ("starts", good["starts"] - 1, r"starts\[0\]\[0\] is -1"),
        ("starts", good["starts"][:, :2], "starts has shape"),
        ("starts", good["starts"].astype("int32"), "starts has dtype int32"),
        ("weights", [], "weights has 0 arrays"),
        ("weights", good["weights"][::-1], r"weights\[0\] has shape \(5\)"),
        ("weights", [torch.ones(4, 6).numpy()], r"weights\[0\] has shape \(4, 6\): pass the size"),
        ("weights", [torch.ones(4).double().numpy()] * 2, r"weights\[0\] has dtype float64"),
        ("nthreads", 0, "nthreads is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.window_accumulate(**{**good, name: wrong})
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        _C.window_accumulate(**good)
