"""Exact tiled inference: the network's answer for the whole image, computed tile by tile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import pad

from fastnets.engine import Optimized
from fastnets.errors import InputError
from fastnets.ops.resize_argmax import resize_argmax

from .manual import plan_with_halo
from .plan import plan_tiles
from .tiles import Tile, TilePlan
from .transfer import Arrival, Transfer

Reduce = Literal["argmax", "threshold"] | Callable[[torch.Tensor], torch.Tensor] | None
Read = Callable[[tuple[slice, ...]], Any]
Write = Callable[[tuple[slice, ...], torch.Tensor], None]


@dataclass
class StageSeconds:
    """Time spent per stage. Reading and writing run beside the network, so the sum may exceed the wall time."""

    read: float = 0.0
    network: float = 0.0
    merge: float = 0.0
    write: float = 0.0


def infer(
    model: nn.Module,
    image: Any,
    *,
    tile: int | Sequence[int] | None = None,
    halo: Literal["auto"] | int | Sequence[int] = "auto",
    max_ram: str | int | None = None,
    max_vram: str | int | None = None,
    reduce: Reduce = None,
    output: int = 0,
    exact: bool = True,
    out: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """What `model(image)` gives, without ever running the network on more than one tile.

    Args:
        model: in eval mode; takes (N, C, *spatial), returns a tensor (N, ..., *spatial') or several.
        image: NumPy, torch or Zarr array (N, C, *spatial); regions are read as they are needed.
        tile: size in input pixels of what one tile contributes, an integer or one a spatial axis; rounded up to
            the network's stride. By default the largest that `max_ram` allows.
        halo: "auto" takes it from the network's graph and proves the result exact. A number (input pixels, a
            multiple of the network's stride) is for networks that cannot be traced: nothing is proven then.
        max_ram: limit for the whole process, such as "2GB". Default: half of the free memory, 2 GB at most.
        max_vram: the same for the memory of the GPU, where the model runs on one: it decides the tile then. Default:
            four fifths of what is free there.
        reduce: per finished region: "argmax" over channels (uint8, int32 beyond 256 classes), "threshold"
            (> 0.5, uint8), or a function of a tensor (1, C, *region) that keeps the spatial dimensions last.
            C × image is then never held.
        output: which tensor, where the model returns several (their flattened order).
        exact: False accepts layers that make tiles differ from the whole (statistics over space, say).
        out: array to write into (anything with item assignment, such as a Zarr array); else a tensor is made.
        progress: called with (tiles done, tiles in all).

    Returns:
        `out`, or a torch tensor on the CPU.

    Raises:
        InputError: the network cannot be tiled exactly (with the layers that forbid it), the budget is too
            small, or an argument does not fit.
    """
    if len(image.shape) < 3:
        raise InputError(f"image of shape {tuple(image.shape)}: expected (N, C, *spatial), as the model takes it")
    count, shape = int(image.shape[0]), tuple(int(n) for n in image.shape[1:])
    plan = make_plan(model, shape, tile=tile, halo=halo, max_ram=max_ram, max_vram=max_vram, output=output, exact=exact)
    done = 0
    for n in range(count):

        def read(crop: tuple[slice, ...], n: int = n) -> Any:
            return image[(n, slice(None), *crop)]

        def write(region: tuple[slice, ...], values: torch.Tensor, n: int = n) -> None:
            nonlocal out, done
            if out is None:
                lead = tuple(values.shape[1 : values.ndim - len(region)])
                out = torch.empty((count, *lead, *plan.output), dtype=values.dtype)
            value = values[0] if isinstance(out, torch.Tensor) else values[0].numpy()
            out[(n, ..., *region)] = value
            done += 1
            if progress is not None:
                progress(done, count * len(plan))

        run_tiles(model, plan, read, write, reduce=reduce, output=output)
    if out is None:  # N = 0: the channels are only known to a network that ran
        raise InputError("image has N = 0: there is nothing to infer")
    return out


def make_plan(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    tile: int | Sequence[int] | None = None,
    halo: Literal["auto"] | int | Sequence[int] = "auto",
    max_ram: str | int | None = None,
    max_vram: str | int | None = None,
    output: int = 0,
    exact: bool = True,
    reserve: int = 0,
) -> TilePlan:
    """The tiles for an image of `shape` (C, *spatial); arguments as in `infer`.

    `reserve` bytes of `max_ram` are left for what the caller holds beside the tile.
    """
    dtype, gpu = _parameter(model).dtype, _gpu_of(model)
    if max_vram is not None and gpu is None:
        raise InputError(f"max_vram={max_vram} came with a model on the CPU: move it to a GPU, or pass max_ram")
    if halo == "auto":
        budgets: dict[str, Any] = {"max_ram": max_ram, "reserve": reserve, "max_vram": max_vram, "gpu": gpu}
        return plan_tiles(model, shape, tile=tile, **budgets, output=output, exact=exact, dtype=dtype)
    axes = len(shape) - 1
    if tile is None:
        raise InputError(f"halo={halo} without tile: give tile=… too, in input pixels")
    tiles = [tile] * axes if isinstance(tile, int) else list(tile)
    halos = [halo] * axes if isinstance(halo, int) else [int(h) for h in halo]
    if len(tiles) != axes or len(halos) != axes:
        raise InputError(f"tile={tile} and halo={halo}: give one number, or one for each of {axes} axes")
    crop = tuple(min(n, t + h) for n, t, h in zip(shape[1:], tiles, halos, strict=True))
    probe = _call(model, torch.zeros((1, shape[0], *crop), dtype=dtype, device=_device_of(model)), output)
    return plan_with_halo(shape, probe, crop, tile=tiles, halo=halos)


def run_tiles(
    model: nn.Module,
    plan: TilePlan,
    read: Read,
    write: Write,
    *,
    reduce: Reduce = None,
    output: int = 0,
) -> StageSeconds:
    """Runs every tile of `plan` in order: `read(crop)` gives (C, *crop), `write(region, values)` takes (1, …, *region).

    Two tiles are read ahead and finished regions are written behind the network, each by one thread, so at most
    four tiles are in memory. `read` sees regions inside the image only; padding is added here. A GPU copies tiles
    and results while it works on others; its time counts as the network's.
    """
    seconds = StageSeconds()
    dtype, transfer, waited = _parameter(model).dtype, Transfer(_device_of(model)), 0.0

    def load(tile: Tile) -> Arrival:
        begin = time.perf_counter()
        inside = tuple(slice(min(c.start, n), min(c.stop, n)) for c, n in zip(tile.crop, plan.spatial, strict=True))
        values = torch.as_tensor(_native(read(inside))).to(dtype)[None]
        missing = [c.stop - c.start - (i.stop - i.start) for c, i in zip(tile.crop, inside, strict=True)]
        if any(missing):
            values = pad(values, [amount for m in reversed(missing) for amount in (0, m)])
        arrival = transfer.up(channels_last(values))
        seconds.read += time.perf_counter() - begin
        return arrival

    def store(tile: Tile, arrival: Arrival) -> None:
        nonlocal waited
        begin = time.perf_counter()
        values = arrival()
        middle = time.perf_counter()
        write(tile.region, values)
        waited += middle - begin
        seconds.write += time.perf_counter() - middle

    tiles = iter(plan)
    with ThreadPoolExecutor(1, "fastnets-read") as reader, ThreadPoolExecutor(1, "fastnets-write") as writer:
        ahead: deque[tuple[Tile, Future[Arrival]]] = deque()
        behind: deque[Future[None]] = deque()

        def prefetch() -> None:
            following = next(tiles, None)
            if following is not None:
                ahead.append((following, reader.submit(load, following)))

        prefetch()
        prefetch()
        while ahead:
            tile, loading = ahead.popleft()
            values = loading.result()()
            prefetch()
            begin = time.perf_counter()
            result = _call(model, values, output)
            middle = time.perf_counter()
            _check_output(result, plan, tile)
            local: Any = (..., *tile.local)
            finished = transfer.down(_reduced(result[local], reduce))
            seconds.network += middle - begin
            seconds.merge += time.perf_counter() - middle
            del result, values
            if len(behind) == 1:
                behind.popleft().result()
            behind.append(writer.submit(store, tile, finished))
        while behind:
            behind.popleft().result()
    seconds.network += waited
    return seconds


def channels_last(values: torch.Tensor) -> torch.Tensor:
    """The tile as oneDNN takes it without reordering: 62 against 119 ms for the slide network (608², 2 cores, fp32).

    One channel is channels-last either way, and torch then takes the other: strides say which is meant. Blocked
    layouts would pad few channels to 16: 433 MB for a first convolution of 78.
    """
    if values.ndim not in (4, 5):
        return values
    values = values.contiguous(memory_format=torch.channels_last if values.ndim == 4 else torch.channels_last_3d)
    if values.shape[1] > 1:
        return values
    _, _, *inner, last = values.stride()
    return values.as_strided(values.shape, (values.stride(0), 1, *inner, last))


def _native(values: Any) -> torch.Tensor | NDArray[Any]:
    """An array that torch takes: in this machine's byte order, writable, of a type that torch has."""
    if isinstance(values, torch.Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind in "ui" and array.dtype.itemsize > 1:
        array = array.astype(np.int64 if array.dtype.itemsize > 2 else np.int32)
    elif not array.dtype.isnative or not array.flags.writeable:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def _parameter(model: nn.Module) -> torch.Tensor:
    """Any parameter or buffer of floating point: it tells the device and the precision."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


def _device_of(model: nn.Module) -> torch.device:
    return model.device if isinstance(model, Optimized) else _parameter(model).device


def _gpu_of(model: nn.Module) -> torch.device | None:
    """The device of a model that runs on a GPU."""
    device = _device_of(model)
    on_gpu = model.on_gpu if isinstance(model, Optimized) else device.type == "cuda"
    return device if on_gpu else None


def _call(model: nn.Module, values: torch.Tensor, output: int) -> torch.Tensor:
    with torch.inference_mode():
        result = model(values)
    flat = [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
    if not 0 <= output < len(flat):
        raise InputError(f"output={output}: the model returns {len(flat)} tensors")
    return flat[output]


def _check_output(result: torch.Tensor, plan: TilePlan, tile: Tile) -> None:
    spatial = result.shape[result.ndim - len(plan.output) :]
    if len(spatial) < len(plan.output) or any(n < local.stop for n, local in zip(spatial, tile.local, strict=True)):
        raise InputError(
            f"the model's output {tuple(result.shape)} does not end in {len(plan.output)} spatial dimensions that "
            "follow the image's: choose another with output=…, or permute it in the model"
        )


def best_channel(values: torch.Tensor) -> torch.Tensor:
    """argmax over the channels, uint8 up to 256 of them; on a GPU in one pass."""
    if values.is_cuda and values.shape[1] <= 256 and 3 <= values.dim() <= 5:
        return resize_argmax(values)
    return values.argmax(1).to(torch.uint8 if values.shape[1] <= 256 else torch.int32)


def _reduced(values: torch.Tensor, reduce: Reduce) -> torch.Tensor:
    if reduce is None:
        return values
    if reduce == "argmax":
        return best_channel(values)
    if reduce == "threshold":
        return (values > 0.5).to(torch.uint8)
    if callable(reduce):
        return reduce(values)
    raise InputError(f"reduce={reduce!r}: accepted are 'argmax', 'threshold', a function, or None")
