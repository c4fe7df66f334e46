"""sliding_window_inference: against an obvious float64 loop, and against MONAI itself."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases.window_accumulate import to_channels_last
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.window_accumulate import window_accumulate
from fastnets.tiling import sliding_labels
from fastnets.tiling.sliding_labels import sliding_window_labels
from fastnets.tiling.sliding_window import sliding_window_inference

TOLERANCE = 1e-5


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def smooth(windows: Tensor) -> Tensor:
    """A network of no weights whose output depends on where the window ends, so that blending matters."""
    axes = windows.dim() - 2
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    first = pool(windows, 3, stride=1, padding=1)
    return torch.cat([first, windows.square(), first * 2 - 1], dim=1)


@pytest.fixture(scope="module")
def monai() -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MONAI and its optional packages say on import
        inferers = pytest.importorskip("monai.inferers")
    return inferers.sliding_window_inference


def check(monai: Callable[..., Any], inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
    ours = sliding_window_inference(inputs, *args, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = monai(inputs, *args, **kwargs)
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = tuple(ours.values()), tuple(theirs.values())
    for a, b in zip(*(((x,) if isinstance(x, Tensor) else x) for x in (ours, theirs)), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)
    return ours


# --- without MONAI


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("size", [(50,), (40, 37), (20, 17, 19)])
def test_identity_keeps_a_constant(size: tuple[int, ...], mode: str) -> None:
    inputs = torch.full((2, 3, *size), 7.25)
    result = sliding_window_inference(inputs, 16, 3, lambda x: x, 0.5, mode)
    torch.testing.assert_close(result, inputs, rtol=1e-6, atol=0)


def test_against_an_obvious_loop() -> None:
    inputs, window, step = image(1, 2, 23, 31), (10, 12), (5, 6)
    axes = [sorted({min(i, n - w) for i in range(0, n, s)}) for n, w, s in zip((23, 31), window, step, strict=True)]
    coordinates = [(torch.arange(w).double() - (w - 1) / 2) / (0.125 * w) for w in window]
    y, x = (torch.exp(-(c**2) / 2) for c in coordinates)
    weight = (y[:, None] * x).clamp(min=1e-3)
    total, count = torch.zeros(1, 6, 23, 31).double(), torch.zeros(23, 31).double()
    for i, j in itertools.product(*axes):
        box = (..., slice(i, i + 10), slice(j, j + 12))
        total[box] += smooth(inputs[box].double()) * weight
        count[box] += weight
    result = sliding_window_inference(inputs, window, 4, smooth, 0.5, "gaussian")
    torch.testing.assert_close(result.double(), total / count, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 3])
def test_neither_inputs_nor_outputs_are_written(batch: int) -> None:
    inputs = image(1, 2, 30, 30)
    before = inputs.clone()
    kept: list[Tensor] = []

    def predictor(windows: Tensor) -> Tensor:
        kept.append(windows * 2)
        return kept[-1]

    result = sliding_window_inference(inputs, 12, batch, predictor, 0.5, "gaussian")
    torch.testing.assert_close(result, inputs * 2)
    assert torch.equal(inputs, before)
    torch.testing.assert_close(kept[0][0], before[0, :, :12, :12] * 2, rtol=0, atol=0)


def test_layout_follows_the_predictor() -> None:
    inputs = image(1, 3, 40, 40).contiguous(memory_format=torch.channels_last)
    seen = []

    def predictor(windows: Tensor) -> Tensor:
        seen.append(windows.is_contiguous(memory_format=torch.channels_last))
        return windows

    result = sliding_window_inference(inputs, 16, 2, predictor, 0.5)
    assert all(seen)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, inputs)
    one_dimensional = sliding_window_inference(to_channels_last(image(1, 3, 40)), 16, 2, lambda x: x, 0.5)
    assert isinstance(one_dimensional, Tensor)
    assert one_dimensional.stride(1) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(1, 1, 8, 8).long()}, "inputs is torch.int64"),
        ({"inputs": torch.zeros(0, 1, 8, 8)}, "none of size 0"),
        ({"roi_size": (4, 4, 4)}, "with 3 entries, and inputs have 2 spatial axes"),
        ({"overlap": 1.0}, r"overlap is 1\.0"),
        ({"overlap": (0.5,)}, "overlap has 1 entries"),
        ({"sw_batch_size": 0}, "sw_batch_size is 0"),
        ({"mode": "linear"}, "mode is 'linear'"),
        ({"buffer_steps": 1, "buffer_dim": 2}, "buffer_dim is 2"),
        ({"roi_weight_map": torch.ones(3, 3)}, r"weight map has shape \(3, 3\): pass \(4, 4\)"),
        ({"predictor": lambda x: x[:1]}, "the predictor returned shape"),
        ({"predictor": lambda x: x.mean((2, 3))}, "the predictor returned shape"),
        (
            {"predictor": lambda x: x[..., :2], "buffer_steps": 1, "sw_device": "cpu:0"},
            r"the predictor turns \(4, 4\) into \(4, 2\), and buffers",
        ),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"inputs": image(1, 1, 8, 8), "roi_size": 4, "sw_batch_size": 2, "predictor": lambda x: x}
    with pytest.raises(InputError, match=message):
        sliding_window_inference(**{**arguments, **change})


def test_output_sizes_that_a_float_ratio_misses() -> None:
    """49 * (1 / 49.0) is below 1."""
    inputs = image(1, 2, 98, 49)
    result = sliding_window_inference(inputs, 49, 2, lambda x: x.mean((2, 3), keepdim=True), 0)
    torch.testing.assert_close(result, F.avg_pool2d(inputs, 49))


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    sliding_window_inference(image(1, 1, 8, 8), 4, 2, lambda x: x, progress=True)
    assert "windows" in capsys.readouterr().out


# --- the same as MONAI

SHAPES = [((61,), 16), ((50, 37), (16, 11)), ((23, 31), (10, 40)), ((21, 18, 25), (9, 8, 30)), ((20, 21, 22), 10)]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.625])
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize(("size", "roi"), SHAPES)
def test_monai_shapes(monai: Callable[..., Any], size: Any, roi: Any, mode: str, overlap: float) -> None:
    check(monai, image(2, 2, *size), roi, 3, smooth, overlap, mode)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"overlap": (0.5, 0.3)},
        {"mode": "gaussian", "sigma_scale": (0.3, 0.05), "overlap": 0.6},
        {"mode": "gaussian", "sigma_scale": 0.5},
        {"roi_weight_map": torch.rand(16, 12) + 0.1, "overlap": 0.5},
        {"roi_weight_map": torch.rand(1, 1, 16, 12) + 0.1, "overlap": 0.5},
        {"buffer_steps": 1, "overlap": 0.5, "mode": "gaussian"},
        {"buffer_steps": 2, "buffer_dim": 0, "overlap": 0.5},
        {"buffer_steps": 99, "buffer_dim": -2},
        {"buffer_steps": 2, "sw_device": "cpu:0", "overlap": 0.6, "mode": "gaussian"},
        {"buffer_steps": 1, "buffer_dim": 0, "sw_device": "cpu:0", "overlap": 0.6},
        {"device": "cpu", "sw_device": "cpu:0"},
    ],
    ids=str,
)
def test_monai_options(monai: Callable[..., Any], options: dict[str, Any], batch: int) -> None:
    check(monai, image(2, 2, 50, 37), (16, 12), batch, smooth, **options)
    check(monai, to_channels_last(image(2, 2, 50, 37)), (16, 12), batch, smooth, **options)


@pytest.mark.parametrize("roi", [None, (None, 8), (-1, 8), (0, 8), 0, [12, None]], ids=str)
def test_monai_open_axes(monai: Callable[..., Any], roi: Any) -> None:
    if roi is None or roi == 0:
        check(monai, image(1, 1, 20, 30), roi, 2, smooth)
    else:
        check(monai, image(1, 1, 20, 30), roi, 2, smooth, 0.5, "gaussian")


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "replicate", "circular"])
def test_monai_padding(monai: Callable[..., Any], padding_mode: str) -> None:
    cval = 3.5 if padding_mode == "constant" else 0.0
    check(monai, image(2, 1, 13, 40), (18, 16), 2, smooth, 0.5, "gaussian", padding_mode=padding_mode, cval=cval)


def at_resolutions(windows: Tensor) -> tuple[Tensor, ...]:
    return smooth(windows), F.avg_pool2d(windows, 2), F.interpolate(windows, scale_factor=(2, 1))


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("size", [(48, 32), (13, 40), (50, 42)])
def test_monai_structures(monai: Callable[..., Any], size: tuple[int, int], mode: str, overlap: float) -> None:
    inputs = image(2, 2, *size)
    options = (16, 3, at_resolutions, overlap, mode)
    check(monai, inputs, *options)
    check(monai, inputs, 16, 3, lambda x: at_resolutions(x)[1], overlap, mode)
    check(monai, inputs, 16, 3, lambda x: list(at_resolutions(x)[1:]), overlap, mode)
    check(monai, inputs, 16, 3, lambda x: dict(zip("cba", at_resolutions(x)[::-1], strict=True)), overlap, mode)
    check(monai, inputs, 16, 3, lambda x: {"only": smooth(x)}, overlap, mode)
    check(monai, inputs, 16, 3, lambda x: (smooth(x), x * 2), overlap, mode, buffer_steps=1)
    check(monai, inputs, 16, 3, lambda x: {"b": smooth(x), "a": x * 2}, overlap, mode, buffer_steps=1)


def test_monai_coordinates_condition_and_arguments(monai: Callable[..., Any]) -> None:
    inputs, condition = image(2, 1, 30, 13), image(2, 3, 30, 13) + 1
    calls: list[Any] = []

    def predictor(windows: Tensor, coordinates: Any, scale: float, *, condition: Tensor, shift: float) -> Tensor:
        calls.append([tuple(box) for box in coordinates])
        return windows * scale + condition.sum(1, keepdim=True) + shift

    kwargs = {"with_coord": True, "condition": condition, "shift": 2.0}
    options = (0.5, "gaussian", 0.125, "constant", 0.0, None, None, False, None, None)
    for buffer_steps in (None, 1, 2):
        calls.clear()
        for run in (sliding_window_inference, monai):
            run(inputs, 16, 3, predictor, *options, buffer_steps, 0, True, 1.5, condition=condition, shift=2.0)
        half = len(calls) // 2
        assert calls[:half] == calls[half:]
    check(monai, inputs, 16, 3, predictor, 0.5, "gaussian", scale=1.5, **kwargs)


@pytest.mark.parametrize("buffer_steps", [None, 2])
def test_monai_process_fn(monai: Callable[..., Any], buffer_steps: int | None) -> None:
    def process(outputs: Any, windows: Tensor, weights: Tensor) -> Any:
        assert weights.shape == (16, 16)
        return tuple(output + windows.mean() for output in outputs), weights.sqrt()

    options = (0.5, "gaussian")
    check(monai, image(2, 1, 40, 30), 16, 3, smooth, *options, process_fn=process, buffer_steps=buffer_steps)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 5e-2), (torch.float16, 5e-3)])
def test_monai_dtypes(monai: Callable[..., Any], dtype: torch.dtype, tolerance: float) -> None:
    arguments = (image(1, 2, 40, 30, dtype=dtype), 16, 3, lambda x: x * 2, 0.5, "gaussian")
    ours, theirs = sliding_window_inference(*arguments), monai(*arguments)
    assert ours.dtype == theirs.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_monai_predictor_in_half_precision(monai: Callable[..., Any]) -> None:
    arguments = (image(1, 2, 40, 30), 16, 3, lambda x: x.bfloat16(), 0.5, "gaussian")
    torch.testing.assert_close(sliding_window_inference(*arguments), monai(*arguments), rtol=2e-2, atol=2e-2)


def test_monai_gradients(monai: Callable[..., Any]) -> None:
    gradients = []
    for run in (sliding_window_inference, monai):
        inputs = image(1, 2, 20, 17).requires_grad_()
        scale = torch.tensor(2.0, requires_grad=True)
        run(inputs, 8, 3, lambda x, scale=scale: (x * scale) ** 2, 0.5, "gaussian").square().sum().backward()
        gradients.append((inputs.grad, scale.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_monai_meta_tensor(monai: Callable[..., Any]) -> None:
    data = pytest.importorskip("monai.data")
    inputs = data.MetaTensor(image(1, 2, 40, 30), affine=torch.eye(4) * 3, meta={"name": "x"})
    ours, theirs = (run(inputs, 16, 3, smooth, 0.5) for run in (sliding_window_inference, monai))
    assert type(ours) is type(theirs)
    assert ours.meta["name"] == "x"
    torch.testing.assert_close(ours.affine, theirs.affine)
    torch.testing.assert_close(ours.as_subclass(Tensor), theirs.as_subclass(Tensor), rtol=1e-5, atol=1e-5)


# --- labels


def upright(windows: Tensor) -> Tensor:
    """Five classes by the value of a pixel and where its window ends."""
    return torch.cat([smooth(windows), -windows, 0.5 - windows.abs()], dim=1)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("shape", "roi", "overlap"),
    [((2, 1, 33, 21), (8, 9), 0.5), ((1, 1, 17, 9, 12), (8, 9, 6), (0.7, 0.0, 0.25)), ((1, 1, 40), 7, 0.0)],
)
def test_labels_are_those_of_the_result(shape: tuple[int, ...], roi: Any, overlap: Any, mode: str) -> None:
    x = image(*shape)
    expected = sliding_window_inference(x, roi, 3, upright, overlap, mode).double()
    labels = sliding_window_labels(x, roi, 3, upright, overlap=overlap, mode=mode)
    assert labels.dtype == torch.uint8
    assert labels.shape == (shape[0], *shape[2:])
    chosen = expected.gather(1, labels[:, None].long())[:, 0]
    assert float((expected.amax(1) - chosen).max()) <= 1e-6  # equal ones may be ordered either way
    assert len(labels.unique()) >= 4


def test_labels_hold_the_sums_of_one_band_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(out.numel())
        return window_accumulate(out, *args, **kwargs)

    monkeypatch.setattr(sliding_labels, "window_accumulate", spy)
    sliding_window_labels(image(1, 1, 64, 12), 8, 4, upright, overlap=0.5)
    assert set(seen) == {5 * 8 * 12}


def test_labels_refuse_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"the image is \(6, 9\) and a window \(8, 9\): pad it"):
        sliding_window_labels(image(1, 1, 6, 9), (8, 9), 1, upright)
    with pytest.raises(InputError, match=r"turns \(8, 8\) into \(4, 4\)"):
        sliding_window_labels(image(1, 1, 9, 9), 8, 1, lambda windows: windows[..., ::2, ::2])
