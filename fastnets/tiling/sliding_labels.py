"""The labels of sliding-window inference, without its result: logits of one band of windows are all that is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastnets.errors import InputError
from fastnets.ops.resize_argmax import resize_argmax
from fastnets.ops.window_accumulate import window_accumulate
from fastnets.tiling.importance import make_importance, per_axis
from fastnets.tiling.sliding_window import WindowCutter
from fastnets.tiling.window_grid import Band, make_banded_batches, make_grid


def sliding_window_labels(
    inputs: Tensor,
    roi_size: Sequence[int] | int,
    sw_batch_size: int,
    predictor: Callable[[Tensor], Tensor],
    *,
    overlap: Sequence[float] | float = 0.25,
    mode: str = "constant",
    sigma_scale: Sequence[float] | float = 0.125,
    device: torch.device | str | None = None,
) -> Tensor:
    """sliding_window_inference(...).argmax(1) in uint8, in a part of its memory.

    Windows run along the first spatial axis. Where no later window reaches, the largest of the weighted sums is
    taken, which no division by the weights changes, and the sums go: there are C × window × the other axes of them.

    Args:
        inputs: (N, C, *spatial), at least as large as a window.
        predictor: returns a tensor (B, C', *window), C' at most 256.
        device: where the windows run and the sums are; None: that of `inputs`. Labels are on that of `inputs`.
        roi_size, sw_batch_size, overlap, mode, sigma_scale: see sliding_window_inference.

    Returns:
        (N, *spatial).

    Raises:
        InputError: an argument is out of range, the image is smaller than a window, or the predictor changes the size.
    """
    image, axes = tuple(inputs.shape[2:]), inputs.dim() - 2
    where = torch.device(device or inputs.device)
    grid = make_grid(image, roi_size, per_axis("overlap", overlap, axes))
    if grid.size != image:
        raise InputError(
            f"sliding_window_labels: the image is {image} and a window {grid.window}: pad it, or pass less"
        )
    weights = make_importance(grid.window, mode, sigma_scale, where)
    cutter = WindowCutter(inputs, grid, where)
    labels = torch.empty((len(inputs), *image), dtype=torch.uint8, device=inputs.device)
    sums, last = torch.empty(0), None
    for batch in make_banded_batches(grid, len(inputs), sw_batch_size, 0, 1):
        band = batch.band
        assert band is not None
        outputs = predictor(cutter.cut(batch))
        if outputs.shape[2:] != grid.window:
            raise InputError(
                f"sliding_window_labels: the predictor turns {grid.window} into {tuple(outputs.shape[2:])}: pass one "
                "that keeps the size"
            )
        if band != last:
            sums = _next(sums, last, band, outputs, image, labels)
            last = band
        origin = torch.tensor([band.image, band.start, *(0,) * (axes - 1)])
        window_accumulate(sums, outputs, batch.places - origin, weights.weights, floor=weights.floor)
    if last is not None:
        _store(sums, last, last.stop, labels)
    return labels


def _next(sums: Tensor, last: Band | None, band: Band, like: Tensor, image: tuple[int, ...], labels: Tensor) -> Tensor:
    """The sums of `band`, which begin with what `last` left of them; the labels before it are stored."""
    depth = band.stop - band.start
    fresh = like.new_zeros((1, depth, *image[1:], like.shape[1]), dtype=torch.float32).movedim(-1, 1)
    if last is None:
        return fresh
    same = last.image == band.image
    end = band.start if same else last.stop
    _store(sums, last, end, labels)
    if same and end < last.stop:
        fresh[:, :, : last.stop - end] = sums[:, :, end - last.start :]
    return fresh


def _store(sums: Tensor, band: Band, end: int, labels: Tensor) -> None:
    """The labels of `band` up to `end`."""
    labels[band.image, band.start : end] = resize_argmax(sums[:, :, : end - band.start])[0].to(labels.device)
