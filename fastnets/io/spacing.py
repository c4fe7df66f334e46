"""Physical pixel sizes: units, what is plausible, and the user's override."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fastnets.errors import InputError

Override = float | Sequence[float] | None
Option = Literal["--mpp", "--spacing"]

MICROMETRES = {
    **dict.fromkeys(("Å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    # U+00B5 and U+03BC look alike, and both occur; ImageJ escapes the first.
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um", "\\u00b5m", "micron", "microns", "micrometer"), 1.0),
    **dict.fromkeys(("mm", "millimeter"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("in", "inch"), 25.4e3),
    **dict.fromkeys(("m", "meter"), 1e6),
}
# A density tag of a picture or TIFF is often the printer's 72 to 600 dpi. No microscope is as coarse as
# 25 µm a pixel (1016 dpi), so a coarser value says nothing about the specimen.
COARSEST_PLAUSIBLE_UM = 25.0


def from_density(pixels: float, unit: str) -> float:
    """Micrometres a pixel from `pixels` a `unit` ("inch", "centimeter", …). 0 or NaN pixels give NaN."""
    return MICROMETRES[unit] / pixels if pixels > 0 else math.nan


def plausible(spacing: Sequence[float]) -> bool:
    """Whether a print density (µm a pixel) may describe a specimen. Invalid values count: they are reported."""
    return not any(value > COARSEST_PLAUSIBLE_UM for value in spacing)


def resolve(
    path: Path, header: Sequence[float] | None, override: Override, *, axes: str, tags: str, option: Option
) -> tuple[float, ...] | None:
    """The spacing of `axes` (spatial ones): the override, else the header's, else None.

    One number as override holds for all axes. A header value that is NaN, infinite or not above 0 is an
    InputError that names `tags` and `option`, unless there is an override.
    """
    if override is not None:
        values = (override,) * len(axes) if isinstance(override, (int, float)) else tuple(override)
        if len(values) != len(axes) or not all(map(_valid, values)):
            raise InputError(
                f"{path}: {option} {override}: expected one number above 0, or {len(axes)} in the order {axes}"
            )
        return tuple(float(v) for v in values)
    if header is None:
        return None
    if not all(map(_valid, header)):
        shown = ", ".join(f"{v:g}" for v in header)
        raise InputError(f"{path}: pixel spacing ({shown}) from {tags} is not above 0: give the true one with {option}")
    return tuple(float(v) for v in header)


def _valid(value: float) -> bool:
    return math.isfinite(value) and value > 0
