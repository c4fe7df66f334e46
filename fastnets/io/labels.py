"""What the writers share: the smallest type that holds a label map, and blocks of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnets.errors import InputError
from fastnets.io.protocol import ClassInfo, LabelMap, Region

TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))


def storage_dtype(label_map: LabelMap) -> np.dtype[Any]:
    """uint8, uint16 or uint32, whichever holds the classes. Without classes, the type of the labels decides."""
    own = np.dtype(label_map.labels.dtype)
    if own.kind not in "bui":
        raise InputError(f"write: labels of type {own} are not whole numbers: reduce them first (argmax)")
    if label_map.classes:
        top = max(c.value for c in label_map.classes)
        return next((t for t in TYPES if top <= np.iinfo(t).max), TYPES[-1])
    return next((t for t in TYPES if own.itemsize <= t.itemsize), TYPES[-1])


def block(label_map: LabelMap, region: Region, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One region of the labels as `dtype`; a label that does not fit is an InputError, not a wrapped number."""
    values = np.asarray(label_map.labels[region])
    if values.size and values.dtype != bool:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > np.iinfo(dtype).max:
            wrong = low if low < 0 else high
            raise InputError(
                f"write: label {wrong} is outside 0 to {np.iinfo(dtype).max}: name every class in `classes`"
            )
    return values.astype(dtype, copy=False)


def regions(shape: Sequence[int], step: Sequence[int]) -> Iterator[Region]:
    """The blocks of `step` that cover `shape`, in C order, cut at the far edges."""
    starts = [range(0, n, s) for n, s in zip(shape, step, strict=True)]
    for corner in product(*starts):
        yield tuple(slice(a, min(a + s, n)) for a, s, n in zip(corner, step, shape, strict=True))


def check_axes(label_map: LabelMap, accepted: Sequence[str], name: str, instead: str) -> None:
    """InputError unless the axes of the label map are among `accepted`."""
    if label_map.axes not in accepted:
        raise InputError(
            f"write: {name} takes labels with axes {' or '.join(accepted)}, got {label_map.axes}: {instead}"
        )


def class_of(label_map: LabelMap, value: int) -> ClassInfo:
    """The class of a value; a value without one is shown in grey under its number."""
    known = {c.value: c for c in label_map.classes}
    return known.get(value, ClassInfo(value, f"class {value}", (128, 128, 128)))
