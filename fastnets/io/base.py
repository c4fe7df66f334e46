"""What the readers share: the checks of a region, and opening and closing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastnets.errors import InputError
from fastnets.io.protocol import Level, Region, Unit


class BaseReader:
    """The attributes of `protocol.Reader`; a format fills them in `__init__` and defines `read` and `close`."""

    format = ""
    path: Path
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: tuple[float, ...] | None
    unit: Unit
    spacing_tags: tuple[str, ...]
    levels: tuple[Level, ...]
    affine: NDArray[np.float64] | None = None
    decode_seconds: float = 0.0

    def close(self) -> None:
        """Releases the file. Reading afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bounds(self, region: Region, level: int) -> list[tuple[int, int]]:
        """Start and stop of every spatial axis, or a ValueError: a region outside is a bug of the caller."""
        if not 0 <= level < len(self.levels):
            raise ValueError(
                f"read: level {level} does not exist: {self.path.name} has levels 0 to {len(self.levels) - 1}"
            )
        shape = self.levels[level].shape
        bounds = [(-1 if s.start is None else s.start, -1 if s.stop is None else s.stop) for s in region]
        inside = all(0 <= a <= b <= n for (a, b), n in zip(bounds, shape, strict=False))
        if len(bounds) != len(shape) or not inside or any(s.step not in (None, 1) for s in region):
            raise ValueError(
                f"read: region {region} is not inside level {level} of shape {shape}: "
                "give a slice with start, stop and step 1 for each spatial axis"
            )
        return bounds

    def _damaged(self, doing: str, error: BaseException) -> InputError:
        """The library's failure as one line of ours."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return InputError(f"{self.path}: cannot {doing}: {reason}; the file is damaged or incomplete: copy it again")


def check_file(path: Path) -> None:
    """InputError unless `path` is a readable file with something inside."""
    if not path.exists():
        raise InputError(f"{path}: no such file: check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if empty:
        raise InputError(f"{path}: the file is empty (0 bytes): copy it again")


def pyramid(shapes: Sequence[tuple[int, ...]]) -> tuple[Level, ...]:
    """Levels of these spatial shapes, their downsampling measured against the first."""
    first = shapes[0]
    return tuple(Level(tuple(s), tuple(a / b for a, b in zip(first, s, strict=True))) for s in shapes)
