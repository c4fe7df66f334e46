"""Weights from a file into a model: all of them, or none and an error that says which."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.hub import PREFIX, download
from fastnets.models.layout_registry import get_layout
from fastnets.models.layouts import State

_SHOWN = 3  # names of each kind in an error


def load_weights(model: nn.Module, path: str | Path, *, layout: str | None = None) -> None:
    """Copies the tensors of a safetensors or torch file into `model`, converted to its dtype and device.

    path: also "hf-hub:owner/name[@revision][:file]", which `fastnets.models.hub` fetches.
    layout: names a key map of `fastnets.models.layout_registry`, for the file of another implementation.

    Torch files are read with weights_only=True: no code of the file runs. A checkpoint that keeps its
    parameters under "state_dict" is understood. Counters of batch norms (num_batches_tracked), which files from
    before 2018 lack, count from 0 then.

    Raises InputError, and leaves the model as it was, unless names and shapes agree exactly.
    """
    rename = None if layout is None else get_layout(layout).rename
    path = download(path) if isinstance(path, str) and path.startswith(PREFIX) else Path(path)
    state, own = _read(path), model.state_dict()
    if rename is not None:
        state = rename(state, own)
    counters = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith("num_batches_tracked")}
    state = counters | state
    _check(own, state, path, type(model).__name__)
    model.load_state_dict(state)


def _check(own: Mapping[str, Tensor], state: State, path: Path, model: str) -> None:
    kinds = {
        "missing from the file": [name for name in own if name not in state],
        "not in the model": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {_shape(state[name])} instead of {_shape(own[name])}"
            for name in own
            if name in state and _shape(state[name]) != _shape(own[name])
        ],
    }
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    ]
    if faults:
        raise InputError(
            f"load_weights: {path} does not fit {model} ({len(own)} tensors): {'; '.join(faults)}. "
            "Nothing was loaded: build the model as it was trained, or pass layout= for another implementation"
        )


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _read(path: Path) -> State:
    """The tensors of a file, whose kind its first bytes tell: suffixes vary."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"load_weights: {path} cannot be read: {error.strerror}") from error
    if head[8:] == b"{":  # a header of JSON after its length
        return _read_safetensors(path)
    if head.startswith((b"PK", b"\x80")):  # a zip archive, or the bare pickle of torch before 1.6
        return _read_torch(path)
    raise InputError(f"load_weights: {path} is neither a safetensors nor a torch file: pass one of these")


def _read_safetensors(path: Path) -> State:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise InputError(
            f"load_weights: {path} is damaged or incomplete ({error}): download or copy it again"
        ) from error


def _read_torch(path: Path) -> State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"load_weights: {path} holds Python objects besides tensors, or is damaged; it was not opened, as "
            "that could run code: where you trust it, save its state_dict as safetensors "
            "(safetensors.torch.save_file) and pass that"
        ) from error
    except Exception as error:  # what a damaged archive raises depends on the byte
        raise InputError(
            f"load_weights: {path} is damaged or incomplete ({type(error).__name__}): download or copy it again"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise InputError(
            f"load_weights: {path} holds a {type(content).__name__}: it must hold a state_dict, names to tensors"
        )
    return content
