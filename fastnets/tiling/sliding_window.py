"""Sliding-window inference with MONAI's call and result, without a Python loop over the pixels of windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.window_accumulate import channels_are_last
from fastnets.ops.window_gather import window_gather
from fastnets.tiling.importance import Importance, make_importance, per_axis
from fastnets.tiling.stitch import Stitch
from fastnets.tiling.window_grid import Batch, WindowGrid, make_banded_batches, make_batches, make_grid

Output = Tensor | tuple[Tensor, ...] | dict[Any, Tensor]


def sliding_window_inference(
    inputs: Tensor,
    roi_size: Sequence[int | None] | int | None,
    sw_batch_size: int,
    predictor: Callable[..., Any],
    overlap: Sequence[float] | float = 0.25,
    mode: str = "constant",
    sigma_scale: Sequence[float] | float = 0.125,
    padding_mode: str = "constant",
    cval: float = 0.0,
    sw_device: torch.device | str | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
    roi_weight_map: Tensor | None = None,
    process_fn: Callable[..., Any] | None = None,
    buffer_steps: int | None = None,
    buffer_dim: int = -1,
    with_coord: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Output:
    """Run `predictor` on overlapping windows of `inputs` and return the weighted mean of its outputs.

    Call and result are those of `monai.inferers.sliding_window_inference` 1.6. The predictor never shares its
    windows or its outputs with the result, and nothing is written into either; but the tensor of windows is
    filled again for the next batch, so a predictor that keeps windows must clone them.

    Args:
        inputs: (N, C, *spatial), 1 to 3 spatial axes, floating point; N ≥ 1. float32 on the CPU runs in a
            kernel; other dtypes and devices in torch, in their own dtype.
        roi_size: window size, one number or one an axis; None, 0 and below take the size of the image.
        sw_batch_size: windows a call of the predictor.
        predictor: called as predictor(windows, *args, **kwargs); returns a tensor, a sequence or a dict of
            tensors (B, C', *size), each of which may have another resolution than the windows.
        overlap: part of a window that the next one covers, in [0, 1), one number or one an axis.
        mode: "constant", or "gaussian": less weight to the edges of windows.
        sigma_scale: standard deviation of "gaussian" over window size, one number or one an axis.
        padding_mode: of torch.nn.functional.pad, where a window is larger than the image.
        cval: the value of padding_mode "constant".
        sw_device: where windows are predicted; None: that of `inputs`.
        device: where outputs are stitched; None: that of `inputs`.
        progress: draw a progress bar.
        roi_weight_map: (*window) or (1, 1, *window), non-negative weights to use in place of `mode`.
        process_fn: called as process_fn(outputs, windows, weights); returns the outputs and weights to use.
            `weights` is (*window). The sums to divide by are made from the first weights that it returns.
        buffer_steps: positions along `buffer_dim` whose windows are summed on `sw_device` before they move to
            `device`; the windows then run in the order of `buffer_dim`, and only the first output is stitched.
        buffer_dim: spatial axis; negative ones count from the last.
        with_coord: call predictor(windows, coordinates, ...), a list of slices along N, C and space a window.
        args: passed to the predictor.
        kwargs: passed to the predictor; `condition`, (N, C'', *spatial), is cut into windows like `inputs`.

    Returns:
        What the predictor returns, with (N, C', *spatial) tensors in the dtype of `inputs` and in the layout,
        channels first or last, of the predictor's first output. A dict has its keys in sorted order.

    Raises:
        InputError: an argument is out of range, or an output of the predictor has no (B, C', *size).
    """
    axes = inputs.dim() - 2
    _check(inputs, axes, sw_batch_size, buffer_steps, buffer_dim)
    overlaps = per_axis("overlap", overlap, axes)
    if any(not 0 <= o < 1 for o in overlaps):
        raise InputError(f"sliding_window_inference: overlap is {overlap}: pass numbers in [0, 1)")
    stitch_device = torch.device(device or inputs.device)
    window_device = torch.device(sw_device or inputs.device)

    image = inputs.shape[2:]
    grid = make_grid(image, roi_size, overlaps)
    sources = {"inputs": inputs, "condition": kwargs.pop("condition", None)}
    cutters = {
        name: WindowCutter(_pad(source, grid, str(padding_mode), cval), grid, window_device)
        for name, source in sources.items()
        if source is not None
    }
    weights = _weights(grid, roi_weight_map, str(mode), sigma_scale, window_device)
    dense = weights.dense(inputs.dtype) if process_fn else None

    steps = max(buffer_steps or 0, 0)
    if steps:
        batches = make_banded_batches(grid, len(inputs), sw_batch_size, buffer_dim % axes, steps)
    else:
        batches = make_batches(grid, len(inputs), sw_batch_size)
    staged = steps > 0 and window_device != stitch_device  # on one device a buffer would only be a copy

    keys: list[Any] | None = None
    stitches: list[Stitch] = []
    for batch in _with_progress(batches) if progress else batches:
        windows = cutters["inputs"].cut(batch)
        if "condition" in cutters:
            kwargs["condition"] = cutters["condition"].cut(batch)
        coordinates = (batch.boxes(grid.window),) if with_coord else ()
        keys, outputs = _flatten(predictor(windows, *coordinates, *args, **kwargs))
        if process_fn:
            outputs, given = process_fn(outputs, windows, dense)
            weights = _from_map(given, grid.window, window_device)
        outputs = [output.as_subclass(Tensor) for output in (outputs[:1] if steps else outputs)]
        scaled = _weights_of_outputs(outputs, windows, weights)
        if not stitches:
            stitches = [
                Stitch(output, w, grid, len(inputs), dtype=inputs.dtype, device=stitch_device, staged=staged)
                for output, w in zip(outputs, scaled, strict=True)
            ]
        for stitch, output, w in zip(stitches, outputs, scaled, strict=True):
            stitch.add(output, w, batch)
        if any(output.requires_grad for output in outputs):
            for cutter in cutters.values():
                cutter.forget()  # the graph holds these windows
    results = [_like_input(_crop(stitch.result(), grid, image), inputs) for stitch in stitches]
    if keys is not None:
        return dict(zip(keys, results, strict=False))  # buffered, only the first output is there
    return results[0] if len(results) == 1 else tuple(results)


class WindowCutter:
    """Copies the windows of a batch into one tensor that is allocated once, in the layout of the image."""

    def __init__(self, image: Tensor, grid: WindowGrid, device: torch.device) -> None:
        self._image = image
        self._window = grid.window
        self._device = device
        self._windows: Tensor | None = None

    def cut(self, batch: Batch) -> Tensor:
        """(B, C, *window) on the device; a view of the image where the batch is one window."""
        count = len(batch.places)
        if count == 1:
            return self._image[tuple(batch.boxes(self._window)[0])].to(self._device)
        if self._windows is None or len(self._windows) < count:
            self._windows = self._allocate(count)
        return window_gather(self._windows[:count], self._image, batch.places).to(self._device)

    def forget(self) -> None:
        """Leave the tensor to whoever holds it."""
        self._windows = None

    def _allocate(self, count: int) -> Tensor:
        channels = self._image.shape[1]
        if channels_are_last(self._image):
            return self._image.new_empty(count, *self._window, channels).movedim(-1, 1)
        return self._image.new_empty(count, channels, *self._window)


def _check(inputs: Tensor, axes: int, batch_size: int, buffer_steps: int | None, buffer_dim: int) -> None:
    name = "sliding_window_inference"
    if not 1 <= axes <= 3 or not inputs.is_floating_point() or not inputs.numel():
        raise InputError(
            f"{name}: inputs is {inputs.dtype} of shape {tuple(inputs.shape)}: pass floating point, "
            "(N, C, *spatial) with 1 to 3 spatial axes, none of size 0"
        )
    if batch_size < 1:
        raise InputError(f"{name}: sw_batch_size is {batch_size}: pass 1 or more")
    if buffer_steps is not None and buffer_steps > 0 and not -axes <= buffer_dim < axes:
        raise InputError(f"{name}: buffer_dim is {buffer_dim}: pass a spatial axis, {-axes} to {axes - 1}")


def _pad(image: Tensor, grid: WindowGrid, mode: str, value: float) -> Tensor:
    image = image.as_subclass(Tensor)
    missing = [size - have for size, have in zip(grid.size, image.shape[2:], strict=True)]
    if not any(missing):
        return image
    widths = [width for m in reversed(missing) for width in (m // 2, m - m // 2)]
    return F.pad(image, widths, mode=mode, value=value)


def _crop(output: Tensor, grid: WindowGrid, image: Sequence[int]) -> Tensor:
    """Remove what `_pad` added, at the resolution of the output."""
    box = [slice(None), slice(None)]
    for got, size, wanted in zip(output.shape[2:], grid.size, image, strict=True):
        before, zoom = (size - wanted) // 2, got / size
        padded = size != wanted
        box.append(slice(round(before * zoom), round((before + wanted) * zoom)) if padded else slice(None))
    return output[tuple(box)]


def _weights(
    grid: WindowGrid,
    weight_map: Tensor | None,
    mode: str,
    sigma_scale: Sequence[float] | float,
    device: torch.device,
) -> Importance:
    if weight_map is not None:
        return _from_map(weight_map, grid.window, device)
    return make_importance(grid.window, mode, sigma_scale, device)


def _from_map(weights: Tensor, window: Sequence[int], device: torch.device) -> Importance:
    if weights.shape not in (tuple(window), (1, 1, *window)):
        raise InputError(
            f"sliding_window_inference: the weight map has shape {tuple(weights.shape)}: "
            f"pass {tuple(window)} or {(1, 1, *window)}"
        )
    return Importance(weights.as_subclass(Tensor).reshape(tuple(window)).to(device))


def _weights_of_outputs(outputs: Sequence[Tensor], windows: Tensor, weights: Importance) -> list[Importance]:
    """The weights at the resolution of each output (B, C, *size)."""
    scaled: list[Importance] = []
    last = weights
    for output in outputs:
        if output.dim() != windows.dim() or len(output) != len(windows):
            raise InputError(
                f"sliding_window_inference: the predictor returned shape {tuple(output.shape)} for windows "
                f"{tuple(windows.shape)}: return tensors of shape (B, channels, *spatial) with the same B"
            )
        # MONAI resizes what it resized for the output before, and so do we: the nearest neighbour of a
        # nearest neighbour is another position than that of the original.
        last = weights if output.shape[2:] == windows.shape[2:] else last.resized(output.shape[2:])
        scaled.append(last)
    return scaled


def _flatten(outputs: Any) -> tuple[list[Any] | None, Sequence[Tensor]]:
    """The keys of a dict of outputs, and the outputs."""
    if isinstance(outputs, Tensor):
        return None, (outputs,)
    if isinstance(outputs, Mapping):
        keys = sorted(outputs)
        return keys, tuple(outputs[key] for key in keys)
    return None, tuple(outputs)


def _like_input(output: Tensor, inputs: Tensor) -> Tensor:
    """A MONAI MetaTensor for a MetaTensor, with its meta data; else the tensor."""
    if not hasattr(inputs, "copy_meta_from"):
        return output
    wrapped = type(inputs)(output)
    wrapped.copy_meta_from(inputs, copy_attr=False)  # type: ignore[attr-defined]
    return wrapped


def _with_progress(batches: Iterable[Batch]) -> Iterator[Batch]:
    from rich.progress import track

    yield from track(list(batches), description="windows")
