"""Images to label maps: read, run the network tile by tile, write what viewers open."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastnets.engine import Optimized
from fastnets.errors import InputError
from fastnets.io import Reader, atomic_path, check_format, find_inputs, open_reader, suffix_of, write
from fastnets.models import create_model, get_entry, list_models
from fastnets.models.recipe import Recipe
from fastnets.tiling.infer import make_plan, run_tiles
from fastnets.tiling.memory import PeakMemory, return_freed_memory

from .grid import check_fits, make_grid
from .store import Store

# What a run holds beside its tiles: decoded segments of the image, the writers' bands.
RESERVE = 20_000_000
Progress = Callable[[str, int, int], None]  # (stage, done, total)


@dataclass
class Prediction:
    """One image's result: where the files are, and what they cost.

    `stages` holds seconds for plan (tracing the network), read, decode, network, merge and write; reading and
    writing run beside the network. `work` is how many pixels the network saw for one of the image: halos cost.
    """

    source: Path
    files: dict[str, Path]
    pixels: int
    tiles: int
    tile_shape: tuple[int, ...]
    work: float = 1.0
    seconds: float = 0.0
    peak_bytes: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)


ENGINES = ("fastnets", "torch")


def load_for_prediction(
    model: str,
    weights: Path | str | None = None,
    engine: str = "fastnets",
    layout: str | None = None,
    device: str = "cpu",
) -> tuple[nn.Module, Recipe]:
    """A registered network, ready to run, with its recipe; `weights` replace those that come with fastnets."""
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r}: pass one of {', '.join(ENGINES)}")
    entry = get_entry(model)
    if entry.recipe is None:
        ready = ", ".join(n for n in list_models() if get_entry(n).recipe is not None)
        raise InputError(
            f"model {model!r} has no recipe (how to scale an image, what its classes are): use one of {ready}"
        )
    network = create_model(model, pretrained=True if weights is None else weights, layout=layout)
    if engine == "fastnets":
        return Optimized(network, device=device), entry.recipe
    memory = torch.channels_last if len(entry.recipe.axes) == 2 else torch.channels_last_3d
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device={device!r}, and torch finds no GPU: pass cpu")
    network.to(device, memory_format=memory)  # type: ignore[call-overload]  # torch's stubs lack it
    return network, entry.recipe


def predict(
    inputs: Path | str | Iterable[Path | str],
    output: Path | str,
    *,
    model: str,
    weights: Path | str | None = None,
    layout: str | None = None,
    spacing: float | Sequence[float] | None = None,
    formats: Sequence[str] | None = None,
    tile: int | None = None,
    max_ram: str | int | None = None,
    device: str = "cpu",
    max_vram: str | int | None = None,
    engine: str = "fastnets",
    overwrite: bool = False,
    progress: Callable[[Path], Progress] | None = None,
) -> list[Prediction]:
    """Runs a model over images and writes label maps into the folder `output`.

    Args:
        inputs: files, folders or patterns.
        output: made if missing. Each file appears under its final name only when it is complete.
        model: a name of `list_models()` that has a recipe.
        weights: a safetensors or torch file, or "hf-hub:owner/name", instead of the model's own.
        layout: whose names the weights have; see `fastnets.load_weights`.
        spacing: true pixel size (µm for slides, mm for volumes), where the file's is missing or wrong.
        formats: of "ome-tiff", "ome-zarr", "nifti", "geojson", "png". Default: ome-tiff, geojson and png for
            slides and pictures; nifti and png for volumes.
        tile: input pixels a tile contributes; by default what `max_ram` allows.
        max_ram: limit for the whole process, such as "2GB".
        device: where the network runs: "cpu", "cuda" or "cuda:1".
        max_vram: limit for the memory of that GPU: it decides the tile there. By default four fifths of what is free.
        engine: what runs the network: "fastnets", by optimize(), or "torch".
        overwrite: replace results that exist; without it they are an error before anything is computed.
        progress: called with each image's path, gives a function (stage, done, total).

    Raises InputError for anything that the caller can mend; nothing is left behind then.
    """
    paths = find_inputs([inputs] if isinstance(inputs, (str, Path)) else inputs)
    network, recipe = load_for_prediction(model, weights, engine, layout, device)
    axes = len(recipe.axes)
    wanted = tuple(formats or (("nifti", "png") if axes == 3 else ("ome-tiff", "geojson", "png")))
    for name in wanted:
        check_format(name, axes)
    folder = Path(output)
    targets = {path: _targets(path, folder, wanted, overwrite) for path in paths}
    if len({next(iter(t.values())) for t in targets.values()}) < len(paths):
        raise InputError("two inputs have the same name and would overwrite each other: give them folders of their own")
    for path in paths:  # what would stop the last image stops the run before the first
        with open_reader(path, spacing=spacing) as reader:
            check_fits(reader, recipe, model)
    _make_writable(folder)
    results = []
    for path in paths:
        report = progress(path) if progress is not None else (lambda stage, done, total: None)
        with open_reader(path, spacing=spacing) as reader:
            budgets = {"tile": tile, "max_ram": max_ram, "max_vram": max_vram}
            results.append(_predict_one(reader, network, recipe, model, targets[path], budgets, report))
    return results


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"output {folder}: cannot be written to: {error.strerror}: choose another folder") from error


def _targets(path: Path, folder: Path, formats: Sequence[str], overwrite: bool) -> dict[str, Path]:
    stem = path.name
    for suffix in (".gz", ".ome.tif", ".ome.tiff", ".ome.zarr", path.suffix, ".nii"):
        stem = stem.removesuffix(suffix)
    role = {"png": ".overlay", "geojson": ""}
    targets = {name: folder / f"{stem}{role.get(name, '.labels')}{suffix_of(name)}" for name in formats}
    for target in targets.values():
        if target.resolve() == path.resolve():
            raise InputError(f"{target}: would replace the input: choose another output folder")
        if target.exists() and not overwrite:
            raise InputError(f"{target}: exists already: pass --overwrite, or choose another folder")
    return targets


def _predict_one(
    reader: Reader,
    network: nn.Module,
    recipe: Recipe,
    model: str,
    targets: dict[str, Path],
    budgets: dict[str, Any],
    report: Progress,
) -> Prediction:
    begin = time.perf_counter()
    folder = next(iter(targets.values())).parent
    with PeakMemory() as memory, tempfile.TemporaryDirectory(prefix=".fastnets-", dir=folder) as scratch:
        grid = make_grid(reader, recipe, model)
        prepared = time.perf_counter() - begin
        planning = time.perf_counter()
        reserve = RESERVE + grid.restore_bytes
        plan = make_plan(network, grid.shape, **budgets, reserve=reserve)
        planned = time.perf_counter() - planning
        steps = len(plan)
        counts = np.zeros(max(c.value for c in recipe.classes) + 1, np.int64)
        store = Store(Path(scratch), grid, recipe, plan.output, counts)
        done = 0

        def save(region: tuple[slice, ...], values: torch.Tensor) -> None:
            nonlocal done
            store.save(region, values)
            done += 1
            report("network", done, steps)

        report("network", 0, steps)
        return_freed_memory()  # of tracing
        seconds = run_tiles(network, plan, grid.read, save, reduce=store.reduce)
        if isinstance(network, Optimized):
            network.release()
        return_freed_memory()  # the writers come on top
        written = time.perf_counter()
        label_map = store.label_map(model)
        merged = time.perf_counter() - written
        for index, (name, target) in enumerate(targets.items()):
            report("write", index, len(targets))
            write(label_map, Path(scratch) / target.name, format=name, reader=reader)
        report("write", len(targets), len(targets))
        for target in targets.values():  # all files of an image appear together, or none
            with atomic_path(target) as partial:
                (Path(scratch) / target.name).rename(partial)
        finished = time.perf_counter() - written - merged
    decode = min(reader.decode_seconds, prepared + seconds.read)
    return Prediction(
        source=reader.path,
        files=targets,
        pixels=int(np.prod(reader.levels[0].shape)),
        tiles=steps,
        tile_shape=plan.crop_shape,
        seconds=time.perf_counter() - begin,
        peak_bytes=memory.peak,
        work=plan.work,
        stages={
            "plan": planned,
            "read": prepared + seconds.read - decode,
            "decode": decode,
            "network": seconds.network,
            "merge": seconds.merge + merged,
            "write": seconds.write + finished,
        },
        classes={c.name: float(counts[c.value] / max(1, counts.sum())) for c in recipe.classes},
    )
