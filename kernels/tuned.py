"""Configurations that were measured, in tuned/<gpu>.json: they replace those that `choose` finds by reasoning.

bench/gpu_tune.py writes such a file, on that GPU. Nothing is tuned inside a call.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fastnets.kernels import launch as run
from torch import Tensor

from fastnets.errors import InputError

FOLDER = Path(__file__).with_name("tuned")
_OPTIONAL = ("activation", "expand_activation", "middle_activation", "residual", "out", "block", "config", "eps")
"""Fields of calls that do not matter here."""
Parameters = ParamSpec("Parameters")
Config = TypeVar("Config")


@dataclass(frozen=True)
class Trial:
    """Configurations to run with, and those that were asked for meanwhile: by kernel and key."""

    configs: Mapping[tuple[str, str], Any]
    asked: dict[tuple[str, str], Any] = field(default_factory=dict)


_trial: ContextVar[Trial | None] = ContextVar("trial", default=None)


@contextlib.contextmanager
def trial(configs: Mapping[tuple[str, str], Any]) -> Iterator[Trial]:
    """Kernels run with `configs`, and no file is read: for whoever measures."""
    own = Trial(configs)
    token = _trial.set(own)
    try:
        yield own
    finally:
        _trial.reset(token)


def tuned(choose: Callable[Parameters, Config]) -> Callable[Parameters, Config]:
    """`choose`, whose result a file for this GPU may replace for the same arguments.

    Raises:
        InputError: the file has what is no configuration of this kernel.
    """
    kernel = choose.__module__.rpartition(".")[2]

    @functools.wraps(choose)
    def chosen(*args: Parameters.args, **options: Parameters.kwargs) -> Config:
        config, now = choose(*args, **options), _trial.get()
        if now is not None:
            place = (kernel, key(*args, *options.values()))
            return now.asked.setdefault(place, now.configs.get(place, config))
        path = FOLDER / f"{run.gpu()}.json"
        measured = _read(path).get(kernel)
        if measured is None:
            return config
        return _replaced(config, measured.get(key(*args, *options.values()), {}), f"{path}: {kernel}")

    return chosen


def key(*arguments: object) -> str:
    """What decides a configuration: dtype, shapes, how a window moves, numbers. Not addresses, nor what is optional."""
    return " ".join(filter(None, map(_described, arguments)))


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}[{','.join(map(str, value.shape))}]" if value.dim() > 1 else ""
    if is_dataclass(value):
        named = {f.name: _described(getattr(value, f.name)) for f in fields(value) if f.name not in _OPTIONAL}
        return " ".join(f"{name}={text}" for name, text in named.items() if text)
    return "" if value is None else str(value).removeprefix("torch.").replace(" ", "")


@functools.cache
def _read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Configurations by kernel and key; none where there is no file."""
    try:
        found: dict[str, dict[str, dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))["kernels"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"tuned: {path} has no table of kernels ({error!r}): write it anew, or remove it") from error
    return found


def _replaced(config: Any, entry: dict[str, Any], where: str) -> Any:
    known = asdict(config)
    for name, value in entry.items():
        if name not in known or type(value) is not type(known[name]):
            raise InputError(f"tuned: {where}: {name} is {value!r}: it needs the fields and types of {config}")
    return replace(config, **entry)
